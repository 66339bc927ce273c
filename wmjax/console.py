"""What runs and tools say and draw, none of which is worth the end of a run.

A closed terminal, a broken pipe or a full disk on standard output makes it quiet for good; letters that its encoding
lacks are spelt; a picture or page that cannot be made is one line of warning. Exit codes stay those of the work.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

_quiet = False  # whether another process says and draws all that this one would
_failed: set[tuple[str, str]] = set()  # kinds of drawings that failed, with the exception's name: told already


def be_quiet() -> None:
    """From here on nothing is said, drawn or warned of, but the errors that end the process."""
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
    """Prints a line on standard error, on a terminal in the place of the progress that stands in its line."""
    write(sys.stderr, f"\r\x1b[2K{text}\n" if is_terminal(sys.stderr) else f"{text}\n")


def write(stream: TextIO | None, text: str) -> str:
    """Writes and flushes. A stream that fails leads to the null device from then on, for other writers too.

    Args:
        stream: None where the process was started without one.
        text: what its encoding cannot spell is written as backslash and number.

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
    """Whether a stream, if it is there and open, shows its lines to someone who sees them change."""
    return stream is not None and not stream.closed and stream.isatty()


def try_drawing(function: Callable, *args: Any) -> Any:
    """Returns function(*args), which makes a picture or a page; None and a line of warning where that fails.

    What fails in the same way again is not told again.
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
    """Once at the start of a process: no file gets the descriptors of closed standard streams, and no flush at the
    end of Python changes the exit code.
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
