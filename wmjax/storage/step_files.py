"""Rows of Steps as files: compressed, each file whole or absent; equal rows make equal files."""

import dataclasses
import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wmjax.storage import files
from wmjax.types import Step

OBS = "obs."  # before the names of the arrays of an observation that is a dict
# What `read` raises for a damaged file; zipfile raises NotImplementedError where a damaged byte names no compression.
UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def write(path: Path, step: Step) -> str:
    """Writes one file, and its folder if there is none.

    Args:
        path: <name>.npz.
        step: numpy Step [T, E, ...]; a field may be None.

    Returns:
        The file's sha256 in hexadecimal.

    Raises:
        UsageError: the disk is full.
    """
    fields = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    if isinstance(step.obs, dict):
        fields |= {f"{OBS}{name}": value for name, value in step.obs.items()} | dict(obs=None)
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    with files.refused_when_full(f"cannot write {path}; make room and start the same command again, it resumes"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write(path, content)
    return hashlib.sha256(content).hexdigest()


def read(file: Path | BinaryIO) -> Step:
    """Reads one file into a numpy Step [T, E, ...].

    Raises:
        FileNotFoundError: there is none.
        OSError, EOFError, ValueError and the others of UNREADABLE: it is damaged.
    """
    names = [field.name for field in dataclasses.fields(Step)]
    with np.load(file) as arrays:
        fields: dict[str, Any] = {name: arrays[name] if name in arrays else None for name in names}
        obs = {name.removeprefix(OBS): arrays[name] for name in arrays if name.startswith(OBS)}
        return Step(**fields | (dict(obs=obs) if obs else {}))
