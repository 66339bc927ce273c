"""One run in several processes, each with devices of its own: on the hosts of a TPU slice, or on machines with GPUs.

    python -m experiments.planet ... --distributed=HOST:PORT/N/I     in each of N processes, I from 0 to N - 1

All processes run the same main and start the same programs in the same order; arrays are split over the devices of all
of them (`wmjax/run/devices.py`). Three things are a process's own:

    environments   each plays its share of the rows, seeded by their number in the whole run
    the folder     process 0 writes it, all of them read it: it has to be on a file system that they share
    decisions      to end or to go on: what depends on clocks and signals is exchanged, so that all decide alike

What was played is gathered, so that files are those of one process and a run goes on with another number of them. With
one process every function here does nothing and costs nothing.
"""

import os
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from wmjax import console
from wmjax.run import stop
from wmjax.run.members import by_member
from wmjax.types import UsageError

FORMS = "off, auto (what the cluster says), or HOST:PORT/N/I: the address of process 0, how many, which"
HEARTBEAT = 20  # seconds without a sign of life after which a process counts as dead and the others end
PARTING = 10  # seconds that a process which fails waits for the others to fail likewise
JOINING = 300  # seconds in which all have to start
CRASHED = 1  # the exit code after an unexpected error, such as that of a connection to a process that died

_count, _index = 1, 0


class Address(NamedTuple):
    """coordinator: host:port of process 0; processes: how many there are; number: of this one, counted from 0."""

    coordinator: str
    processes: int
    number: int


def count() -> int:
    """How many processes this run has."""
    return _count


def is_first() -> bool:
    """Whether this is the process that writes the folder and speaks for all."""
    return _index == 0


def read(text: str) -> Address | None:
    """The Address that "HOST:PORT/N/I" names; None for auto. Raises: UsageError for anything else."""
    if text == "auto":
        return None
    match = re.fullmatch(r"(.+:\d+)/(\d+)/(\d+)", text)
    if not match or not int(match[3]) < int(match[2]):
        raise UsageError(f"--distributed={text}: give {FORMS}")
    return Address(match[1], int(match[2]), int(match[3]))


def start(text: str) -> None:
    """Joins the processes of a run, before the first use of a device. text: of --distributed, not "off".

    Raises: UsageError for a text that says nothing, and where the others do not come.
    """
    global _count, _index
    address = read(text)
    known = dict(zip(("coordinator_address", "num_processes", "process_id"), address or (), strict=False))
    waits = dict(heartbeat_timeout_seconds=HEARTBEAT, initialization_timeout=JOINING)
    try:
        jax.distributed.initialize(**known, **waits)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--distributed={text}: {error}") from error
    _count, _index = jax.process_count(), jax.process_index()
    if not is_first():
        console.be_quiet()
    gather(None)  # connects all with all while they are together


def leave(code: int) -> int:
    """Ends the part of this process in the run; returns the exit code, or exits with it where others may still wait."""
    global _count, _index
    if _count == 1:
        return code
    if code in (0, os.EX_TEMPFAIL) or (code != CRASHED and _all_fail()):  # it returns when all have called it
        jax.distributed.shutdown()
        _count, _index = 1, 0
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_printed_by_first(message: str) -> bool:
    """Whether process 0 ends with the same message as this process, so that this one need not print it too."""
    if _count == 1:
        return False
    try:
        if is_first():
            _client().key_value_set("failure", message)
            return False
        return _client().blocking_key_value_get("failure", PARTING * 1000) == message
    except Exception:  # process 0 has not failed, or is gone
        return False


def share(rows: int) -> tuple[int, int]:
    """(number, first) of the environment rows of this process, of `rows` that the number of processes divides."""
    number = rows // _count
    return number, number * _index


def gather(value: Any) -> list[Any]:
    """What each process has, in order: anything that can be pickled. All have to call it."""
    if _count == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32))  # [N, 1]
    room = 1 << int(sizes.max() - 1).bit_length()  # few lengths, for each compiles a program
    all_data = multihost_utils.process_allgather(np.pad(data, (0, room - len(data))))  # [N, room]
    return [pickle.loads(padded[: size[0]].tobytes()) for padded, size in zip(all_data, sizes, strict=True)]


def of_first(function: Callable[[], Any]) -> Any:
    """What `function` returns in process 0, where alone it is called; its UsageError is raised in all of them."""
    if _count == 1:
        return function()
    found, fault = None, None
    if is_first():
        try:
            found = function()
        except UsageError as error:
            fault = str(error)
    found, fault = gather((found, fault))[0]
    if fault is not None:
        raise UsageError(fault)
    return found


def everywhere(true: bool) -> bool:
    """Whether something is true in every process."""
    if _count == 1:
        return true
    return bool(multihost_utils.process_allgather(np.array([true], np.int32)).all())


def asked() -> str:
    """The name of a signal that came to any of the processes, the same in all of them; "" if none came."""
    if _count == 1:
        return stop.asked()
    names = ("", *(signal.name for signal in stop.SIGNALS))
    found = multihost_utils.process_allgather(np.array([names.index(stop.asked())], np.int32))
    return names[found[found > 0][0]] if found.any() else ""


def check() -> None:
    """Raises stop.Stopped, in all processes at the same place, if a signal came to any of them."""
    if name := asked():
        raise stop.Stopped(name)


def to_devices(tree: Any, sharding: Any) -> Any:
    """Numpy arrays on the devices. Of several processes each brings its share of the axis that the sharding splits, or
    all of what every device holds."""
    if _count == 1:
        return jax.device_put(tree, sharding)
    with jax.transfer_guard_host_to_device("allow"):  # as jax does it itself for the copies of device_put
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def from_devices(x: jax.Array, axis: int) -> np.ndarray:
    """An array as numpy; of one whose axis number `axis` is split over several processes, this one's share."""
    if _count == 1:
        return jax.device_get(x)
    parts = {shard.index[axis].start or 0: shard.data for shard in x.addressable_shards}  # of equal ones the last
    return np.concatenate(jax.device_get([parts[first] for first in sorted(parts)]), axis=axis)


def to_host(tree: Any) -> Any:
    """What every device holds, of several processes as numpy arrays and keys that one of them can store by itself."""
    return tree if _count == 1 else jax.device_get(tree)


def whole_rows(tree: Any, members: int, axis: int) -> Any:
    """Every process's environment rows, put together as one process has them.

    Args: tree: numpy arrays whose axis number `axis` is [S * own rows]; members: S.
    Returns: the same with [S * E] in all processes.
    """
    if _count == 1:
        return tree
    parts = [by_member(rows, members, axis) for rows in gather(tree)]
    joined = jax.tree.map(lambda *x: np.concatenate(x, axis=axis + 1), *parts)  # [..., S, E, ...]
    return jax.tree.map(lambda x: x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :]), joined)


def _all_fail() -> bool:
    """Whether every process comes here within PARTING seconds."""
    try:
        _client().wait_at_barrier("failed", PARTING * 1000)
    except Exception:  # of the connection too, where others are gone
        return False
    return True


def _client() -> Any:
    from jax._src import distributed  # jax has no public name for what its own barriers use

    return distributed.global_state.client
