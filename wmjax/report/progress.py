"""Live progress: one line that is overwritten on a terminal, one plain line an iteration in a file or a pipe."""

import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from wmjax import console

RECENT = 20  # iterations that tell the time left
FIRST_EVALUATION = 2.0  # minutes, where none was measured


class Progress:
    """Shows how far a run is. A run ends at a number of episodes, after a number of minutes, or whichever comes first.

    Args:
        episodes: planned number of episodes (or of what `unit` says), or None.
        minutes: limit on the minutes from now on, or None.
        done_minutes: those before a resume.
        unit: what is counted, by the metric of that name and an s.
        stream: where to write; standard output if None.
    """

    def __init__(
        self,
        episodes: int | None,
        minutes: float | None = None,
        *,
        done_minutes: float = 0.0,
        unit: str = "episode",
        stream: TextIO | None = None,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._live = console.is_terminal(self._stream)
        self._episodes, self._minutes, self._unit = episodes, minutes, unit
        self._minutes_before = done_minutes
        self._start = time.monotonic()
        self._last: tuple[float, dict] = (self._start, {})
        self._trained: list[tuple[float, int]] = []  # seconds and episodes of each iteration that trained
        self._eval: float | None = None

    def elapsed_minutes(self) -> float:
        """Minutes of this run, those before a resume counted in."""
        return self._minutes_before + self.minutes_here()

    def minutes_here(self) -> float:
        """Minutes since this process began."""
        return (time.monotonic() - self._start) / 60

    def out_of_time(self, evaluation: float | None) -> bool:
        """Whether no more of the minutes are left than a last evaluation needs.

        evaluation: seconds that the newest one took; None before the first: a third of the minutes is kept then, at
            most FIRST_EVALUATION.
        """
        if self._minutes is None:
            return False
        kept = min(self._minutes / 3, FIRST_EVALUATION) if evaluation is None else evaluation / 60
        return self.minutes_here() + kept >= self._minutes

    def show(self, metrics: dict[str, Any]) -> None:
        """Shows one iteration.

        Args:
            metrics: as written to metrics.jsonl; used are episodes, env_steps, updates, collect/return,
                eval/return_mean (the last one seen is kept) and train/loss, each if present.
        """
        now = time.monotonic()
        before, previous = self._last
        self._last = (now, dict(metrics))
        self._eval = metrics.get("eval/return_mean", self._eval)
        done = int(metrics.get(f"{self._unit}s", 0))
        parts = [f"{self._unit} {done}" + (f"/{self._episodes}" if self._episodes else "")]
        for label, value in (("return", metrics.get("collect/return")), ("eval", self._eval)):
            parts += [f"{label} {value:.1f}"] if value is not None else []
        parts += [f"loss {metrics['train/loss']:.4g}"] if metrics.get("train/loss") is not None else []
        for label, name in (("updates/s", "updates"), ("env steps/s", "env_steps")):
            if name in metrics and name in previous and now > before:
                parts.append(f"{(metrics[name] - previous[name]) / (now - before):.3g} {label}")
        parts.append(f"{duration(self.elapsed_minutes() * 60)} gone")
        if metrics.get("updates") != previous.get("updates", 0):  # seed episodes are another kind of work
            self._trained.append((now - before, done - int(previous.get(f"{self._unit}s", 0))))
        left = self._seconds_left(done)
        parts += [f"{duration(left)} left"] if left is not None else []
        self._print("  ".join(parts))

    def note(self, text: str) -> None:
        """Prints a line that stays, above the live one."""
        console.write(self._stream, f"\r\x1b[2K{text}\n" if self._live else f"{text}\n")

    def phase(self, doing: str, done: int, count: int) -> None:
        """Shows that `done` of `count` parts of a long piece of work are done; in a file every quarter of them."""
        if self._live or (4 * done) // count > (4 * (done - 1)) // count:
            self._print(f"{doing}: {done / count:.0%}  {duration(self.elapsed_minutes() * 60)} gone")

    def close(self) -> None:
        """Ends the live line so that what follows starts on its own."""
        if self._live:
            console.write(self._stream, "\n")

    def _seconds_left(self, episode: int) -> float | None:
        lefts = []
        if self._episodes:
            lefts += seconds_left(self._trained, max(self._episodes - episode, 0))
        if self._minutes:
            lefts.append(max(self._minutes - self.minutes_here(), 0) * 60)
        return min(lefts) if lefts else None

    def _print(self, line: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1  # a longer line would wrap and could not be overwritten
            console.write(self._stream, f"\r\x1b[2K{line[:width]}")
        else:
            console.write(self._stream, line + "\n")


def seconds_left(iterations: Sequence[tuple[float, int]], episodes: int) -> list[float]:
    """[seconds that `episodes` more will take], or [] where that is not known yet.

    iterations: (seconds, episodes) of those that trained in this process. The first one compiles and tells nothing; of
    the others the newest count, for a machine may become slower.
    """
    recent = iterations[1:][-RECENT:]
    done = sum(count for _, count in recent)
    return [sum(seconds for seconds, _ in recent) / done * episodes] if done else []


def duration(seconds: float) -> str:
    """59 -> '59s', 3599 -> '59m59s', 7260 -> '2h01m'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
