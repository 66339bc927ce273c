"""Output of runs and tools: lines on the terminal, pictures and pages. No failure of it ends a run.

Where standard output cannot be written (a closed terminal, a broken pipe, a full disk), nothing more is printed there.
Characters that its encoding lacks are written as escapes. A picture or page that cannot be made is one line of warning.
Exit codes stay those of the work.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

_quiet = False  # whether another process prints and draws everything that this one would
_failed: set[tuple[str, str]] = set()  # (function, exception) by name, of the failed drawings that were warned of


def be_quiet() -> None:
    """From here on this process draws nothing and prints nothing but the error that ends it."""
    global _quiet
    _quiet = True


def say(text: str) -> None:
    """Prints a line on standard output, at once."""
    fault = write(sys.stdout, f"{text}\n")
    if fault:
        warn(f"standard output cannot be written ({fault}): nothing more is printed there")


def warn(text: str) -> None:
    """Prints a line on standard error, unless this process is to be quiet."""
    if not _quiet:
        fail(text)


def fail(text: str) -> None:
    """Prints a line on standard error; on a terminal it overwrites the line of progress."""
    write(sys.stderr, f"\r\x1b[2K{text}\n" if is_terminal(sys.stderr) else f"{text}\n")


def write(stream: TextIO | None, text: str) -> str:
    """Writes and flushes. A stream that fails is led to the null device from then on, for all who write to it.

    Args:
        stream: None where the process was started without one.
        text: characters that the stream's encoding lacks are written as escapes.

    Returns:
        What failed, in the operating system's words; "" if nothing did.
    """
    if stream is None or (_quiet and stream is sys.stdout):
        return ""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        return str(error) if _lead_nowhere(stream) else ""
    return ""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is there, open and a terminal, whose lines can be overwritten."""
    return stream is not None and not stream.closed and stream.isatty()


def try_drawing(function: Callable, *args: Any) -> Any:
    """Returns function(*args), which makes a picture or a page; None and a line of warning where that fails.

    A function that fails again with the same kind of exception is not warned of again.
    """
    if _quiet:
        return None
    try:
        return function(*args)
    except Exception as error:  # whatever the libraries that draw may raise
        kind = (function.__name__, type(error).__name__)
        if kind not in _failed:
            _failed.add(kind)
            warn(f"warning: {function.__name__} failed, the run goes on: {' '.join(str(error).split())}")
        return None


def prepare_streams() -> None:
    """To be called at the start of a process: opens the null device for standard streams that are closed, so that no
    file gets their descriptors, and sees to it that no flush at Python's end changes the exit code.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free one, which is this
    atexit.register(lambda: (write(sys.stdout, ""), write(sys.stderr, "")))


def _lead_nowhere(stream: TextIO) -> bool:
    """Puts the null device behind a stream, so that its buffer can be emptied; False where it has no descriptor."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        return False
    return True
