"""The working folder of a run: its config, its lock, and writing files so that a kill never leaves half of one.

config.json     the config as run; the same command in the same folder resumes, another config is refused, but for
                settings that change nothing of what was done
versions.json   one entry for every start: command, changed settings, packages, platform, device, date
.lock           held by the process that runs here; the operating system lets go of it when that process dies
"""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from wmjax import console
from wmjax.storage import files
from wmjax.storage.files import atomic_write, is_disk_full
from wmjax.types import UsageError

CONFIG, VERSIONS, LOCK = "config.json", "versions.json", ".lock"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "envpool", "mujoco", "dm_control")
SETTINGS = ("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision")
SHOWN_DIFFERENCES = 4

_locks: dict[Path, Any] = {}  # open lock files of this process: closing one lets go of its lock


def open_workdir(path: str | Path, config: dict, may_differ: Collection[str] = ()) -> bool:
    """Makes `path` the working folder of this process, new or resumed.

    Args:
        path: the folder; made if absent, parents too.
        config: nested dict of plain values (tuples count as lists).
        may_differ: settings such as "train.episodes" that may change when a run resumes; a new value is named on
            stderr and kept.

    Returns:
        True if the folder already holds this config (the run resumes), False if it is new.

    Raises:
        UsageError: another process runs here; the folder holds another config (named key by key), a damaged one,
            or files but no config; the path cannot be a folder; the disk is full.
    """
    path, config = Path(path), json.loads(json.dumps(config))

    def look() -> tuple[bool, list[str]]:
        resumed = (path / CONFIG).exists()
        return resumed, _changed(path, config, may_differ) if resumed else _check_empty(path)

    try:
        path.mkdir(parents=True, exist_ok=True)
        look()  # without the lock, whose file a refused folder would keep
        lock(path)
        resumed, changed = look()
        if changed:
            console.warn(f"resuming with other settings: {', '.join(changed)}")
        if changed or not resumed:
            atomic_write(path / CONFIG, json.dumps(config, indent=1) + "\n")
        _note_start(path, changed)
    except OSError as error:
        if is_disk_full(error):
            raise UsageError(f"disk full: cannot start a run in {path}") from error
        raise UsageError(f"cannot use {path} as a working folder: {error}") from error
    return resumed


def close_workdir(path: str | Path) -> None:
    """Lets go of the lock. Only for a process that goes on living; the end of a process does the same."""
    held = _locks.pop(Path(path).resolve(), None)
    if held is not None:
        held.close()


def read_config(path: str | Path) -> dict:
    """The config of a run. Raises UsageError if there is none or it is damaged."""
    file = Path(path) / CONFIG
    try:
        config = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} is not the working folder of a run: it has no {CONFIG}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{file} is damaged ({error}); choose another working folder") from error
    if not isinstance(config, dict):
        raise UsageError(f"{file} is damaged (not a JSON object); choose another working folder")
    return config


def check_writable_run(path: str | Path) -> None:
    """Raises UsageError unless a folder holds a run, and results can be written into it."""
    read_config(path)
    files.make_folder(Path(path))  # is there, but may be closed to this user


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """{"model": {"size": 3}} -> {"model.size": 3}; empty dicts stay as values."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def lock(path: Path) -> None:
    """Holds a folder for this process until it ends or calls `close_workdir`; UsageError if another one does."""
    folder = path.resolve()
    if folder in _locks:  # this process started a run here before
        return
    file = open(folder / LOCK, "a")  # noqa: SIM115  stays open as long as the run
    locked = files.lock(file)
    if locked is False:
        file.close()
        raise UsageError(f"another process is running in {path}: wait for it or choose another folder")
    if locked is None:
        console.warn(f"warning: no locks on the file system of {path}: start one run there at a time")
    _locks[folder] = file


def is_running_elsewhere(path: str | Path) -> bool:
    """Whether another process has opened the working folder and is alive; False where locks do not tell."""
    folder = Path(path).resolve()
    return folder not in _locks and files.is_locked(folder / LOCK)


def _check_empty(path: Path) -> list[str]:
    """No changes; raises UsageError if a folder without a config has files."""
    others = sorted(p.name for p in path.iterdir() if p.name != LOCK and not p.name.endswith(".tmp"))
    if others:
        raise UsageError(f"{path} has files ({', '.join(others[:3])}) but no {CONFIG}; choose another folder")
    return []


def _changed(path: Path, config: dict, may_differ: Collection[str]) -> list[str]:
    """["train.episodes 3 -> 5", ...] of the settings that differ from the folder's; UsageError for one that may not."""
    old, new = flatten(read_config(path)), flatten(config)
    absent = "(absent)"
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key, absent) != new.get(key, absent))
    changes = {key: f"{key} {old.get(key, absent)} -> {new.get(key, absent)}" for key in changed}
    refused = [text for key, text in changes.items() if key not in may_differ]
    if refused:
        more = len(refused) - SHOWN_DIFFERENCES
        listed = ", ".join(refused[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
        raise UsageError(f"{path} holds a run with another config: {listed}; choose another folder")
    return list(changes.values())


def versions() -> dict[str, Any]:
    """Date, command, Python, packages, settings that change numbers, platform, device and processor of this process."""
    found: dict[str, Any] = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    found["command"] = shlex.join(["python", *sys.orig_argv[1:]])
    found["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found |= {name: getattr(jax.config, name) for name in SETTINGS} | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
    device = jax.devices()[0]
    found |= {"platform": platform.platform(), "device": f"{device.platform} {device.device_kind}"}
    return found | {"devices": jax.device_count(), "processor": processor(), "cpu_count": os.cpu_count()}


def processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read_starts(path: str | Path) -> list[dict]:
    """The entries of versions.json, oldest first; [] if there are none, or it is damaged."""
    try:
        starts = json.loads((Path(path) / VERSIONS).read_text())
    except (OSError, ValueError):
        return []
    return starts if isinstance(starts, list) and all(isinstance(start, dict) for start in starts) else []


def _note_start(path: Path, settings: list[str]) -> None:
    """Appends this start to versions.json. settings: those that have changed, in words."""
    starts, now = read_starts(path), versions()
    if starts:
        old = starts[-1]
        changed = [
            f"{name} {old[name]} -> {value}"
            for name, value in now.items()
            if name not in ("date", "command") and name in old and old[name] != value
        ]
        if changed:
            listed = ", ".join(changed)
            console.warn(f"resuming with other versions or settings, results may differ in the last bits: {listed}")
    now |= {"changed_settings": settings} if settings else {}
    atomic_write(path / VERSIONS, json.dumps([*starts, now], indent=1) + "\n")
