"""The suite's model files with another drawing quality, for machines that draw in software.

Most of the time of a software-drawn frame goes into its shadow map and into multisampling, four samples a pixel.
envpool takes the folder of its models as an argument: this makes a folder of links to envpool's own files in which only
the XML files that have a `<quality shadowsize="..."/>` are rewritten. Systems delete old files from caches one by one,
so every file is looked for at every call.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
import time

from wmjax.envs import cache
from wmjax.types import UsageError

QUALITY = re.compile(rb'<quality shadowsize="(\d+)"/>')
SCRATCH = "scratch-"
ABANDONED = 3600  # seconds after which a scratch folder's process was killed; it needs a moment


def assets(base_path: str, shadow_size: int | None, multisample: bool) -> str:
    """Returns a `base_path` for envpool of the suite's models with another quality.

    The folder of links is made in the user's cache at the first call; later ones put back what is missing in it.

    Args:
        base_path: envpool's own folder of models.
        shadow_size: side of the shadow map in pixels; None: the suite's.
        multisample: False: one sample a pixel; True: the suite's four. With both as in the suite: `base_path` itself.

    Raises:
        UsageError: the folder cannot be written.
    """
    if shadow_size is None and multisample:
        return base_path
    source = pathlib.Path(base_path).resolve() / "mujoco" / "assets_dmc"
    stamp = hashlib.sha256(f"{source} {source.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache.folder() / f"quality-{shadow_size}-{multisample}-{stamp}"
    models = folder / "mujoco" / "assets_dmc"
    files = {models / path.relative_to(source): path for path in source.rglob("*.*")}
    missing = {}
    for target, path in files.items():
        changed = _changed(path, shadow_size, multisample) if path.suffix == ".xml" else None
        if not _is_whole(target, path, changed):
            missing[target] = (path, changed)
    try:
        if missing:
            _put(missing)
    except OSError as error:
        raise UsageError(f"cannot write the suite's models with another quality into {folder}: {error}") from error
    return str(folder)


def _changed(path: pathlib.Path, shadow_size: int | None, multisample: bool) -> bytes | None:
    """The content of an XML file with another quality; None if it names none."""
    text, samples = path.read_bytes(), b"" if multisample else b' offsamples="0"'
    size = b"\\1" if shadow_size is None else b"%d" % shadow_size
    changed = QUALITY.sub(b'<quality shadowsize="' + size + b'"' + samples + b"/>", text)
    return None if changed == text else changed


def _is_whole(target: pathlib.Path, path: pathlib.Path, changed: bytes | None) -> bool:
    """Whether `target` is a link to `path`, or a file of its own with the changed content."""
    try:
        if changed is None:
            return os.readlink(target) == str(path) and path.exists()
        return target.read_bytes() == changed
    except OSError:
        return False


def _put(missing: dict[pathlib.Path, tuple[pathlib.Path, bytes | None]]) -> None:
    """Makes {target: (original, content, or None for a link)}. Each comes whole, so others may do so meanwhile."""
    for old in cache.folder().glob(f"{SCRATCH}*"):
        with contextlib.suppress(FileNotFoundError):  # the process that made it has just finished
            if old.lstat().st_mtime < time.time() - ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=cache.folder()) as scratch:
        for target, (path, changed) in missing.items():
            new = pathlib.Path(scratch) / target.name
            if changed is None:
                new.symlink_to(path)
            else:
                new.write_bytes(changed)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(new, target)
