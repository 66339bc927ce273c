"""Ending a run in order when a signal asks for it: SIGTERM, SIGUSR1 or Ctrl-C.

From `listen` on the first signal only asks: `check` raises Stopped, between two decisions of an episode and between two
dispatches of training. A second one ends the process at once with the code 128 + its number.

While XLA computes Python runs no handler, for seconds; so signals are read from a pipe by a thread of their own.
"""

import contextlib
import os
import signal
import threading
from typing import Any, NamedTuple

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(Exception):
    """A signal asked the run to end; its text is the signal's name."""


class _Listening(NamedTuple):
    """What `forget` needs to put back."""

    handlers: dict[signal.Signals, Any]
    wakeup: int
    pipe: int  # its end for writing
    thread: threading.Thread


_listening: _Listening | None = None
_asked: list[str] = []  # names of the signals that came


def listen() -> None:
    """Takes over SIGNALS, but for those that the process was started to ignore; in the main thread only."""
    global _listening
    if _listening or threading.current_thread() is not threading.main_thread():
        return
    source, pipe = os.pipe()
    os.set_blocking(pipe, False)
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    thread = threading.Thread(target=_read, args=(source,), daemon=True)
    wakeup = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
    thread.start()
    handlers = {number: signal.signal(number, lambda *_: None) or signal.SIG_DFL for number in heard}
    _listening = _Listening(handlers, wakeup, pipe, thread)


def forget() -> None:
    """Undoes `listen`, and forgets what came."""
    global _listening
    if _listening:
        for number, handler in _listening.handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(_listening.wakeup)
        os.write(_listening.pipe, b"\0")
        _listening.thread.join()
        os.close(_listening.pipe)
    _listening = None
    _asked.clear()


def asked() -> str:
    """The name of the signal that came since `listen`; "" if none did."""
    return _asked[0] if _asked else ""


def check() -> None:
    """Raises Stopped if a signal came since `listen`."""
    if _asked:
        raise Stopped(_asked[0])


def dispatch_size(updates: int, most: int) -> int:
    """Updates of one dispatch in a phase of `updates`: their largest divisor up to `most`; all are one program."""
    return max(size for size in range(1, most + 1) if updates % size == 0)


def _read(source: int) -> None:
    """Notes the signals whose numbers arrive, until a 0 does."""
    while number := os.read(source, 1)[0]:
        if number not in SIGNALS:
            continue
        name = signal.Signals(number).name
        if _asked:
            _say(f"{name} after {_asked[0]}: ends at once; the same command resumes from the last checkpoint")
            os._exit(128 + number)
        _asked.append(name)
        _say(f"{name}: the run saves and ends after what it is computing now; a second signal ends it at once")
    os.close(source)


def _say(line: str) -> None:
    """Past Python's own buffers, which another thread may be writing to."""
    with contextlib.suppress(OSError):
        os.write(2, f"{chr(10) * os.isatty(2)}{line}\n".encode())  # a terminal shows a live line there
