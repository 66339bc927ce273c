"""Checkpoints that survive a kill at any moment, and the replay rows on disk beside them.

    checkpoints/000000001200/state/           the arrays, by orbax
    checkpoints/000000001200/manifest.json    size and sha256 of every file, and every value that is not an array;
                                              written last: a checkpoint without it was never finished
    replay/000012.npz                         append-only rows, each file whole or absent
    evaluation/000003.npz                     the same, of evaluations that are kept

A run that resumes calls `restore_latest`, reads back as many replay files as the restored counters say with
`load_rows`, removes the later ones with `drop_rows_from`, and cuts the metrics back to the restored offset.
"""

import functools
import hashlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from wmjax import console
from wmjax.storage import files, manifest, step_files
from wmjax.storage.manifest import AS_SAVED
from wmjax.storage.workdir import is_running_elsewhere
from wmjax.types import Step, UsageError

__all__ = ["AS_SAVED", "append_rows", "count_rows", "drop_rows_from", "load_rows", "restore_latest", "save"]

CHECKPOINTS, STATE, MANIFEST = "checkpoints", "state", "manifest.json"
SAVED_TO = "commit_success.txt"  # orbax leaves it beside the arrays
REPLAY, EVALUATION = "replay", "evaluation"  # folders of rows
HALF = "half-written"
TRIES = 5  # looks for the newest checkpoint beside a training that writes them faster than they can be read


def save(workdir: str | Path, step: int, state: Any, *, keep: int = 2) -> Path:
    """Writes one checkpoint, whole or not at all; returns only when it is on the disk.

    Args:
        workdir: the folder of the run.
        step: the number that orders checkpoints, such as the episodes or updates so far.
        state: any pytree; leaves are jax or numpy arrays, PRNG keys of either kind, or int, float, bool, str, None.
        keep: how many finished checkpoints stay, this one counted in; older ones, unfinished ones and ones of later
            steps (damaged, or the run would have resumed from them) are deleted, and only after this one is finished.

    Returns:
        The folder of the new checkpoint.

    Raises:
        UsageError: the disk is full; earlier checkpoints are untouched.
        TypeError: a leaf is of another kind.
    """
    root = Path(workdir).absolute() / CHECKPOINTS
    arrays, leaves = manifest.split(state)
    folder = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        for unfinished in (p for p in _folders(root) if not (p / MANIFEST).exists()):
            shutil.rmtree(unfinished)
        folder = _free_name(root, step)
        folder.mkdir()
        if arrays:
            _save_arrays(folder / STATE, arrays)
        body = {"step": step, "leaves": leaves, "files": _fingerprints(folder)}
        files.sync_folder(root)
        files.write_sealed(folder / MANIFEST, body)
    except Exception as error:
        if not files.is_disk_full(error):
            raise
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        good = _finished(root)
        safe = f"nothing lost, last good checkpoint is {good[-1]}" if good else "no checkpoint was written yet"
        raise UsageError(f"disk full: cannot write checkpoint {step}; {safe}; make room and start again") from error
    finished = _folders(root)
    kept = finished[: finished.index(folder) + 1][-keep:]
    for old in (p for p in finished if p not in kept):
        (old / MANIFEST).unlink(missing_ok=True)  # first, so that a kill in between leaves no half of a finished one
        shutil.rmtree(old)
    return folder


def restore_latest(workdir: str | Path, template: Any) -> tuple[int, Any] | None:
    """Reads the newest checkpoint that is whole; warns of each newer one that it skips, and why.

    A training beside this may finish a checkpoint and delete the one that is being read: then the newest is looked for
    anew. The one that it has not finished yet is skipped without a warning.

    Args:
        workdir: the folder of the run.
        template: a pytree like the saved one, for its structure, shapes, dtypes and where arrays live (numpy, jax,
            jax with a sharding, `jax.ShapeDtypeStruct`). AS_SAVED stands for a part that may have any form.

    Returns:
        (step, state); None if no checkpoint was ever finished.

    Raises:
        UsageError: finished checkpoints exist but all are damaged; or the saved state has another structure, shape
            or dtype than the template (another model).
    """
    root = Path(workdir).absolute() / CHECKPOINTS
    for _ in range(TRIES):
        before = _finished(root)
        found, faults = _newest(root, template)
        if not faults or _finished(root) == before:
            break
    if is_running_elsewhere(workdir):
        faults = {name: fault for name, fault in faults.items() if fault != HALF}
    for name, fault in faults.items():
        console.warn(f"passing over checkpoint {name}: {fault}")
    if found or list(faults.values()) in ([], [HALF]):  # a kill leaves one half at most, and alone only at the start
        return found
    listed = ", ".join(f"{name} ({fault})" for name, fault in faults.items())
    raise UsageError(f"no good checkpoint in {root}: {listed}; choose another folder")


def append_rows(workdir: str | Path, index: int, step: Step, rows: str = REPLAY) -> Path:
    """Writes rows as <rows>/<index>.npz, whole or not at all; equal rows make equal files.

    Args:
        workdir: the folder of the run.
        index: number of this file, counted from 0.
        step: numpy Step [T, E, ...]; a field may be None.
        rows: REPLAY or EVALUATION, the folder that they go to.

    Raises:
        UsageError: the disk is full.
    """
    path = _rows_path(workdir, index, rows)
    step_files.write(path, step)
    return path


def load_rows(workdir: str | Path, count: int, rows: str = REPLAY) -> Iterator[Step]:
    """Yields what `append_rows` wrote as files 0 to count - 1, in order, each a numpy Step [T, E, ...].

    Raises:
        UsageError: a file is missing or damaged, by name.
    """
    for index in range(count):
        path = _rows_path(workdir, index, rows)
        try:
            yield step_files.read(path)
        except FileNotFoundError as error:
            raise UsageError(f"{rows} file {path} is missing: its episodes cannot be read") from error
        except step_files.UNREADABLE as error:
            raise UsageError(f"{rows} file {path} is damaged ({error}): its episodes cannot be read") from error


def count_rows(workdir: str | Path, rows: str = REPLAY) -> int:
    """How many files `append_rows` has written."""
    return len(list((Path(workdir) / rows).glob("*.npz")))


def drop_rows_from(workdir: str | Path, index: int, rows: str = REPLAY) -> None:
    """Removes files `index` and later, and unfinished ones: leftovers written after the restored checkpoint."""
    root = Path(workdir) / rows
    if not root.exists():
        return
    for path in root.iterdir():
        if path.name.endswith(".tmp") or (path.stem.isdigit() and int(path.stem) >= index):
            path.unlink()


def _rows_path(workdir: str | Path, index: int, rows: str) -> Path:
    return Path(workdir) / rows / f"{index:06d}.npz"


@functools.cache
def _orbax() -> ocp.Checkpointer:
    """The synchronous checkpointer. Of several processes each reads and writes by itself and waits for no other."""
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(index, {index}, f"process_{index}")
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Orbax's threads log a failure with its whole trace and raise it as well: once is enough."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        _orbax().save(path, args=ocp.args.PyTreeSave(arrays))
    finally:
        log.setLevel(level)
    (path / SAVED_TO).unlink(missing_ok=True)  # it holds this machine's path, and restoring does not read it


def _order(folder: Path) -> tuple[int, ...]:
    """000000001200 -> (1200,), 000000001200-2 -> (1200, 2): a step saved again is newer."""
    return tuple(int(number) for number in folder.name.split("-"))


def _folders(root: Path) -> list[Path]:
    if not root.exists():
        return []
    return sorted((p for p in root.iterdir() if re.fullmatch(r"\d{12}(-\d+)?", p.name)), key=_order)


def _free_name(root: Path, step: int) -> Path:
    """A name after those of all folders of this step: an older one may be gone, and its name would order it wrongly."""
    same = [(*_order(p), 1)[1] for p in _folders(root) if _order(p)[0] == step]
    return root / (f"{step:012d}-{max(same) + 1}" if same else f"{step:012d}")


def _fingerprints(folder: Path) -> dict[str, dict]:
    """Relative path -> size and sha256 of every file but the manifest, each made to survive a power cut."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder):
        content = path.read_bytes()
        files.sync_file(path)
        found[str(path.relative_to(folder))] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for path in (p for p in folder.rglob("*") if p.is_dir()):
        files.sync_folder(path)
    return found


def _finished(root: Path) -> list[Path]:
    """The folders of checkpoints that were finished, oldest first."""
    return [folder for folder in _folders(root) if (folder / MANIFEST).exists()]


def _newest(root: Path, template: Any) -> tuple[tuple[int, Any] | None, dict[str, str]]:
    """((step, state) of the newest checkpoint that is whole or None, what is wrong with every newer one, by name)."""
    faults: dict[str, str] = {}
    for folder in reversed(_folders(root)):
        body, fault = _verify(folder)
        if body is not None:
            try:
                found = body["step"], _load(folder, body["leaves"], template)
            except Exception:
                if (folder / MANIFEST).exists():  # `save` deletes it before anything else of a checkpoint
                    raise
            else:
                if (folder / MANIFEST).exists():
                    return found, faults
            fault = "deleted while it was read"
        faults[folder.name] = fault
    return None, faults


def _verify(folder: Path) -> tuple[dict | None, str]:
    """(the manifest's body, "") if the checkpoint is whole, else (None, what is wrong with it)."""
    try:
        body = files.read_sealed(folder / MANIFEST)
    except FileNotFoundError:
        return None, HALF
    except (ValueError, OSError):
        return None, f"damaged file {MANIFEST}"
    for name, expected in body["files"].items():
        path = folder / name
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None, f"missing file {name}"
        if len(content) != expected["size"] or hashlib.sha256(content).hexdigest() != expected["sha256"]:
            return None, f"damaged file {name}"
    return body, ""


def _load(folder: Path, leaves: list[dict], template: Any) -> Any:
    """Reads the arrays of a verified checkpoint into the form of the template."""
    misfit = manifest.difference(leaves, template)
    if misfit:
        raise UsageError(f"checkpoint {folder} is of another model: {misfit}; choose another folder")
    names = [entry["name"] for entry in leaves if "name" in entry]
    how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    read = _orbax().restore(folder / STATE, args=ocp.args.PyTreeRestore(restore_args=how)) if names else {}
    return manifest.join(leaves, read, template)
