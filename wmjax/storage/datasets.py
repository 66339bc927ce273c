"""Folders of recorded data: compressed shards of Steps in two splits, each shard checked by its sha256.

    shards.json        what was asked, what the environments are like, and for every finished shard its sha256, its
                       numbers of rows, decisions and bytes, and the returns of its episodes
    train_00000.npz    a Step [T, E, ...], from the beginning of an episode in every environment
    test_00000.npz     the second shard of every eleven is a test shard, the first one of all included: 10 to 1
    config.json, versions.json     as in the folder of a run, see `wmjax.storage.workdir`

    number      0              1             2     ...   11             12             13
    name        train_00000    test_00000    train_00001 train_00010    test_00001     train_00011

Shards are independent of each other, and the number of a shard says everything about it: whoever records can make any
that is missing, at any time.
"""

import hashlib
import io
from pathlib import Path

import jax
import numpy as np

from wmjax.storage import files, step_files, workdir
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError

INDEX = "shards.json"
SPLITS = ("train", "test")
MOST = 100_000  # shards of a folder: their names have five digits
EVERY = 11  # Buesing et al. 2018, appendix A.4: 10^8 transitions to train on and 10^7 to test on


def name_of(number: int) -> str:
    """The file of a shard, counted from 0."""
    if number % EVERY == 1:
        return f"test_{number // EVERY:05d}.npz"
    return f"train_{number - (number + EVERY - 2) // EVERY:05d}.npz"


def count_for(decisions: int, shard_decisions: int) -> int:
    """How many shards hold at least so many decisions in all; two at the least, one of each split."""
    return max(2, -(-decisions // shard_decisions))


def open_folder(folder: str | Path, asked: dict, spec: EnvSpec) -> dict:
    """Opens a folder to record in, new or begun before; holds its lock until `workdir.close_workdir` or the end.

    Args:
        folder: made if absent.
        asked: plain values; everything but the number of shards that the data are a function of.
        spec: of the environments that are recorded.

    Returns:
        The body of shards.json.

    Raises:
        UsageError: the folder was begun with another `asked` (named key by key), is in use, holds something else, or
            its shards.json is damaged.
    """
    folder = Path(folder)
    workdir.open_workdir(folder, asked)
    if (folder / INDEX).exists():
        return _read_index(folder)
    shape, action = list(map(int, spec.obs_shape)), spec.action
    described = dict(obs_shape=shape, obs_dtype=np.dtype(spec.obs_dtype).name, action=action._asdict())
    described |= dict(action_repeat=spec.action_repeat, time_limit=spec.time_limit)
    return dict(asked=asked, spec=described, shards={})


def missing(folder: str | Path, index: dict, count: int) -> list[tuple[int, str]]:
    """Which of the first `count` shards have to be recorded, and why: [(number, "" or what is wrong with it), ...]."""
    found = []
    for number in range(count):
        entry = index["shards"].get(name_of(number))
        fault = _read_shard(Path(folder) / name_of(number), entry)[1] if entry else ""
        if not entry or fault:
            found.append((number, fault))
    return found


def add(folder: str | Path, index: dict, number: int, steps: Step) -> dict:
    """Writes one shard and then shards.json. steps: numpy Step [T, E, ...]. Returns the new body of shards.json.

    Raises:
        UsageError: the disk is full; what was there is untouched.
    """
    path = Path(folder) / name_of(number)
    sha256 = step_files.write(path, steps)
    length, envs = steps.reward.shape
    entry = dict(sha256=sha256, bytes=path.stat().st_size, rows=length * envs, decisions=(length - 1) * envs)
    entry["returns"] = finished_returns(steps)
    index = index | dict(shards=index["shards"] | {path.name: entry})
    again = "make room and start the same command again, it resumes"
    with files.refused_when_full(f"cannot write {INDEX} in {folder}; {again}"):
        files.write_sealed(Path(folder) / INDEX, index)
    return index


def finished_returns(steps: Step) -> list[float]:
    """The returns of all episodes that end in Step [T, E]; every column begins with an episode."""
    found = []
    for reward, is_last in zip(steps.reward.T.astype(np.float64), steps.is_last.T, strict=True):
        found += [float(part.sum()) for part in np.split(reward, np.flatnonzero(is_last) + 1)[:-1]]
    return found


def total(index: dict) -> dict:
    """Sums over all shards: decisions, bytes, episodes, and return_mean, None without an episode."""
    entries = index["shards"].values()
    returns = [value for entry in entries for value in entry["returns"]]
    sums = {name: sum(entry[name] for entry in entries) for name in ("decisions", "bytes")}
    return sums | dict(episodes=len(returns), return_mean=float(np.mean(returns)) if returns else None)


def read_spec(folder: str | Path) -> EnvSpec:
    """What the recorded environments are like. Raises UsageError if there is no shards.json or it is damaged."""
    spec = _read_index(Path(folder))["spec"]
    shape, dtype = tuple(spec["obs_shape"]), np.dtype(spec["obs_dtype"])
    return EnvSpec(
        jax.ShapeDtypeStruct(shape, dtype), ActionSpec(**spec["action"]), spec["action_repeat"], spec["time_limit"]
    )


def fingerprint(folder: str | Path) -> str:
    """The sha256 of what was recorded, by shards.json: lost and damaged shards, which can be recorded again, count too.

    Raises UsageError if there is no shards.json or it is damaged.
    """
    entries = _read_index(Path(folder))["shards"]
    return hashlib.sha256("".join(name + entries[name]["sha256"] for name in sorted(entries)).encode()).hexdigest()


def nbytes(folder: str | Path, split: str) -> int:
    """About the bytes of a split in memory, by shards.json. Raises UsageError if that is absent or damaged."""
    index = _read_index(Path(folder))
    entries = [entry for name, entry in index["shards"].items() if name.startswith(split)]
    image = int(np.prod(index["spec"]["obs_shape"])) * np.dtype(index["spec"]["obs_dtype"]).itemsize
    return image * sum(entry["rows"] for entry in entries)


def read(folder: str | Path, split: str) -> tuple[list[Step], list[str]]:
    """All good shards of one split.

    Args:
        folder: a folder of recorded data; the recording may be unfinished or under way.
        split: "train" or "test".

    Returns:
        (a numpy Step [T, E, ...] of every good shard, in order; one line for every shard that is missing or damaged).

    Raises:
        UsageError: no such split, no shards.json, a damaged one, or no good shard of this split.
    """
    if split not in SPLITS:
        raise UsageError(f"split {split!r} does not exist: choose one of {', '.join(SPLITS)}")
    folder, steps, faults = Path(folder), [], []
    entries = _read_index(folder)["shards"]
    for name in sorted(name for name in entries if name.startswith(split)):
        step, fault = _read_shard(folder / name, entries[name])
        if step is None:
            faults.append(fault)
        else:
            steps.append(step)
    if not steps:
        raise UsageError(f"{folder} has no good {split} shard: {'; '.join(faults) or 'none was recorded'}")
    return steps, faults


def _read_index(folder: Path) -> dict:
    try:
        return files.read_sealed(folder / INDEX)
    except FileNotFoundError as error:
        raise UsageError(f"{folder} holds no recorded data: it has no {INDEX}") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"{folder / INDEX} is damaged: record again into another folder") from error


def _read_shard(path: Path, entry: dict) -> tuple[Step | None, str]:
    """(the shard, "") or (None, what is wrong with it)."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            return None, f"shard {path} is damaged: its sha256 is not the one in {INDEX}"
        return step_files.read(io.BytesIO(content)), ""
    except FileNotFoundError:
        return None, f"shard {path} is missing"
    except step_files.UNREADABLE as error:
        return None, f"shard {path} is damaged: {error}"
