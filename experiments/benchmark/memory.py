"""The most that the device's memory has held so far in this process, beside what programs asked for in their rows."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from wmjax.report.benchmark import Finding

FIGURES = dict(peak="peak_bytes_in_use", in_use="bytes_in_use", limit="bytes_limit", largest="largest_alloc_size")
UNKNOWN = dict(told="this platform keeps no account of it (memory_stats)")


def works(preset: str) -> Iterator[Finding]:
    """One row for each device."""
    for device in jax.local_devices():
        yield Finding(f"{device.platform} {device.id}", functools.partial(held, device))


def held(device: Any) -> dict[str, Any]:
    """Its figures in GB; words where the platform keeps no account."""
    return figures(device, FIGURES) or UNKNOWN


def figures(device: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of FIGURES that are named and that the platform knows, in GB."""
    stats = device.memory_stats() or {}
    return {f"{name}_gb": stats[FIGURES[name]] / 1e9 for name in names if FIGURES[name] in stats}
