"""This user's folder for small files that can be made again: models with another drawing quality, what works here."""

import atexit
import functools
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator

from wmjax.types import UsageError


def folder() -> pathlib.Path:
    """Returns a folder that this user alone can read and write, made where it is not there.

    The first of these that is usable: $XDG_CACHE_HOME/wmjax/drawing, ~/.cache/wmjax/drawing without that variable,
    wmjax-<uid> among the temporary files, a temporary folder of this process.

    Raises:
        UsageError: no folder can be made.
    """
    try:
        for path in _places():
            if _is_private(path):
                return path
    except OSError as error:
        raise UsageError(f"no folder for temporary files: {error}") from error
    raise UsageError(f"no folder for temporary files can be made in {tempfile.gettempdir()}: set TMPDIR to another")


def user_cache() -> pathlib.Path | None:
    """The user's cache folder, as the XDG specification has it: a variable that is not absolute counts as unset.

    Returns:
        An absolute path; None where the user has no home.
    """
    for folder in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(folder):
            return pathlib.Path(folder)
    return None


def _places() -> Iterator[pathlib.Path]:
    home = user_cache()
    if home is not None:
        yield home / "wmjax" / "drawing"
    yield pathlib.Path(tempfile.gettempdir()) / f"wmjax-{os.getuid()}"
    yield _of_this_process()


def _is_private(path: pathlib.Path) -> bool:
    """Whether a folder is there, or could be made, that is this user's, closed to others and can be written to."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return False
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
    except OSError:
        return False
    return True


@functools.cache
def _of_this_process() -> pathlib.Path:
    path = pathlib.Path(tempfile.mkdtemp(prefix="wmjax-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
