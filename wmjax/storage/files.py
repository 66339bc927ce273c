"""Files that are whole or absent, survive a power cut, tell when they were changed, and can be locked."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from wmjax.types import UsageError

NOT_THERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)  # of a function that a file system does not have


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes a file whole or not at all: a temporary file beside it, fsync, rename.

    Raises:
        OSError: as the operating system says; the old file is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it. Raises UsageError where there can be none, or nothing can be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(f"cannot write into {path}: {error.strerror}") from error


def check_place(path: str | Path) -> None:
    """Raises UsageError where `make_folder` would, and makes nothing."""
    path = Path(path).absolute()
    nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise UsageError(f"cannot write into {path}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into {path}: {nearest}: {os.strerror(errno.EACCES)}")


def write_whole(path: Path, content: bytes | str) -> Path:
    """Writes a file for a user, and the folders above it. Raises UsageError if that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as error:
        why = "disk full: " if is_disk_full(error) else ""
        raise UsageError(f"{why}cannot write {path}: {error.strerror}") from error
    return path


def write_sealed(path: str | Path, body: dict) -> None:
    """Writes a JSON object beside its own sha256, whole or not at all. Raises OSError as `atomic_write` does."""
    atomic_write(path, json.dumps({"sha256": _digest(body), "body": body}))


def read_sealed(path: str | Path) -> dict:
    """Reads what `write_sealed` wrote. Raises ValueError if it is damaged; OSError, FileNotFoundError among them."""
    try:
        sealed = json.loads(Path(path).read_bytes())
        good = sealed["sha256"] == _digest(sealed["body"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what was written") from error
    if not good:
        raise ValueError(f"{path} is not what was written")
    return sealed["body"]


def _digest(body: dict) -> str:
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def sync_folder(path: Path) -> None:
    """Makes renames and new names in a folder survive a power cut, where its file system has means to."""
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in (*NOT_THERE, errno.EINVAL):
            raise


def sync_file(path: Path) -> None:
    """Makes the content of a file survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def refused_when_full(message: str) -> Iterator[None]:
    """Turns a full disk into a UsageError, "disk full: " and the message; other errors pass."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise UsageError(f"disk full: {message}") from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one it came from, says that the disk or the quota is full.

    Storage libraries wrap the operating system's error in their own types, so the text is looked at as well.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left on device", "Disk quota exceeded", "ENOSPC")):
            return True
        error = error.__cause__ or error.__context__
    return False


def lock(file: IO) -> bool | None:
    """Locks an open file, for this process and those that inherit it, until it is closed.

    Returns: True; False where another process has it; None where the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (*NOT_THERE, errno.ENOLCK):
            raise
        return None
    return True


def is_locked(path: str | Path) -> bool:
    """Whether a process that lives has locked a file; False where there is none, or where locks do not tell."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
