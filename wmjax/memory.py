"""How much memory is free, on the default device or the host, and one line of refusal where something does not fit."""

import re
from collections.abc import Callable
from typing import Any

import jax

from wmjax.types import UsageError


def check_fits(need: float, what: str, free: float | None = None) -> None:
    """Raises UsageError unless `need` bytes, for `what`, are free: of `free` bytes, or else on the default device."""
    free = free_memory() if free is None else free
    if free is not None and need > free:
        raise UsageError(f"{what} needs {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: make it smaller")


def free_memory() -> int | None:
    """Free bytes on the default device (of the host, on CPU); None where neither is known."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return host_memory()


def nbytes(tree: Any) -> int:
    """Bytes of all arrays of a pytree, or of arrays like its ShapeDtypeStructs."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def read_text(path: str) -> str:
    """The text of a file; "" where there is none."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def host_memory(read: Callable[[str], str] = read_text) -> int | None:
    """Free bytes of the host: what the machine has and what every control group around this process leaves.

    Args: read: function (path) -> text of that file, "" where there is none.
    Returns: the smallest of them; None where nothing is known.
    """
    available = re.search(r"^MemAvailable:\s*(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    free = [int(available[1]) * 1024] if available else []
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = "/sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = "/sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):  # every group that this one is in; inside a container some are not seen
            group = "/".join([root, *parts[:depth]])
            free += group_memory(*(read(f"{group}/{name}") for name in (*names, "memory.stat")))
    return min(free, default=None)


def group_memory(limit: str, used: str, stat: str) -> list[int]:
    """[free bytes of one control group], [] where it has no limit, by the texts of its files.

    What it uses of files, by memory.stat, the kernel gives back when asked.
    """
    if not limit.strip().isdecimal() or not used.strip().isdecimal():  # "max", or no such group
        return []
    prefix = "total_" if "total_" in stat else ""  # version 1 counts the group without its subgroups as well
    files = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
    return [max(0, int(limit) - int(used) + sum(map(int, files)))]
