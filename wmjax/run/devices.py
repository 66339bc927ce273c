"""The devices of a run: a mesh of one axis, "data", over which environment rows, replay rows and batches are split.

Parameters are on every device; the compiler averages their gradients. One device is a mesh of one.
"""

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wmjax import backend
from wmjax.types import UsageError

AXIS = "data"


def make_mesh(wanted: str | int) -> Mesh:
    """A mesh of as many devices of each process.

    Args: wanted: "all", or a number of devices, as a string or an int.
    Raises: UsageError if there are not so many, or if processes would have different numbers.
    """
    found = jax.devices()
    count = len(found) if wanted == "all" else wanted
    if not str(count).isdecimal() or int(count) < 1:
        raise UsageError(f"config.devices={wanted}: give all, or a number from 1 to {len(found)}")
    if int(count) > len(found):
        raise UsageError(f"config.devices={wanted}: this machine has {len(found)}")
    processes = sorted({each.process_index for each in found})
    if int(count) % len(processes):
        raise UsageError(f"config.devices={wanted}: cannot be split over {len(processes)} processes")
    own = int(count) // len(processes)
    by_process = [[each for each in found if each.process_index == process] for process in processes]
    return Mesh(np.array([each for those in by_process for each in those[:own]]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int) -> NamedSharding:
    """Sharding of arrays whose axis number `axis` is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def split_rows(mesh: Mesh, shapes: Callable[[int], Any]) -> Any:
    """Shardings of arrays each of which has its rows at an axis of its own, or has none and is on every device.

    Args: shapes: (number of rows) -> ShapeDtypeStructs of the arrays; the axis that grows with it is split.
    """
    if mesh.size == 1:
        return replicated(mesh)

    def place(one: Any, other: Any) -> NamedSharding:
        grown = [axis for axis, sizes in enumerate(zip(one.shape, other.shape, strict=True)) if len(set(sizes)) > 1]
        return split(mesh, grown[0]) if grown else replicated(mesh)

    return jax.tree.map(place, shapes(1), shapes(2))


def in_one_memory(mesh: Mesh) -> int:
    """How many of the devices fill the same memory: on CPUs all of this process do, others have one each."""
    return len(mesh.local_devices) if backend.is_cpu() else 1


def no_transfers() -> AbstractContextManager:
    """A context in which copies between host and device are an error; without jit each operation makes such copies."""
    config: Any = jax.config  # whose attributes mypy does not know
    return contextlib.nullcontext() if config.jax_disable_jit else jax.transfer_guard("disallow")


def check_divisible(mesh: Mesh, sizes: Mapping[str, int]) -> None:
    """Raises UsageError unless every size, by the name of its setting, is a multiple of the number of devices."""
    for name, size in sizes.items():
        if size % mesh.size:
            raise UsageError(f"{name}={size} cannot be split over {mesh.size} devices: give a multiple of {mesh.size}")
