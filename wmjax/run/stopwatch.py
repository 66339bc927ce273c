"""Where the seconds go: named stopwatches, read and reset once an iteration."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """`with stopwatch("env"): ...` adds the seconds inside to "env". Blocks may nest; each counts its whole time."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def flush(self) -> dict[str, float]:
        """{"time/env": seconds since the last flush, ...}, then starts again from nothing."""
        flushed = {f"time/{name}": seconds for name, seconds in self._seconds.items()}
        self._seconds = {}
        return flushed
