"""One thread in which dm_control draws: a context of EGL belongs to the thread that made it, to be freed there too.

Environments step in threads of their own, so without this a second thread could not draw, and the end of the process
would free contexts in the wrong one.
"""

import atexit
import functools
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def call(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function(*args, **kwargs), in the thread that draws; raises what it raises."""
    done: Future = Future()
    _calls().put((done, function, args, kwargs))
    return done.result()


def free_with(owner: Any, free: Callable) -> Callable:
    """Calls free() in the thread that draws when `owner` is no more, or at the end of the process; once.

    To be called after the first frame: what is registered last is called first, before dm_control's own. free must not
    hold `owner`. Returns: a function that does so now.
    """
    finalizer = weakref.finalize(owner, call, free)
    finalizer.atexit = False
    atexit.register(finalizer)
    return finalizer


@functools.cache
def _calls() -> queue.SimpleQueue:
    """What the thread has still to do; it begins at the first call and lasts beyond the pools of `concurrent`."""
    calls: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_work, args=(calls,), daemon=True).start()
    return calls


def _work(calls: queue.SimpleQueue) -> None:
    while True:
        done, function, args, kwargs = calls.get()
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:  # for the one who waits
            done.set_exception(error)
