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
    """The mesh of a run, equally many devices of each process.

    Args: wanted: "all", or the number of devices in all, as a string or an int.
    Raises: UsageError if there are not so many, or if processes would have different numbers.
    """
    devices = jax.devices()
    count = len(devices) if wanted == "all" else wanted
    if not str(count).isdecimal() or int(count) < 1:
        raise UsageError(f"config.devices={wanted}: give all, or a number from 1 to {len(devices)}")
    if int(count) > len(devices):
        raise UsageError(f"config.devices={wanted}: this machine has {len(devices)}")
    processes = sorted({device.process_index for device in devices})
    if int(count) % len(processes):
        raise UsageError(f"config.devices={wanted}: cannot be split over {len(processes)} processes")
    share = int(count) // len(processes)
    by_process = [[device for device in devices if device.process_index == process] for process in processes]
    return Mesh(np.array([device for group in by_process for device in group[:share]]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int) -> NamedSharding:
    """Sharding of arrays whose axis number `axis` is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def split_rows(mesh: Mesh, shapes: Callable[[int], Any]) -> Any:
    """Shardings of a pytree of arrays that have their rows at different axes: split along them, or replicated.

    Args: shapes: (number of rows) -> ShapeDtypeStructs of the arrays. An axis that grows with the number holds rows; an
      array without such an axis is on every device.
    """
    if mesh.size == 1:
        return replicated(mesh)

    def sharding_of(of_one_row: Any, of_two_rows: Any) -> NamedSharding:
        sizes = zip(of_one_row.shape, of_two_rows.shape, strict=True)
        grown = [axis for axis, (one, two) in enumerate(sizes) if one != two]
        return split(mesh, grown[0]) if grown else replicated(mesh)

    return jax.tree.map(sharding_of, shapes(1), shapes(2))


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
