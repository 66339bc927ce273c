"""Metrics of a run: one JSON object a line in metrics.jsonl, and the same numbers as TensorBoard scalars.

A run goes on without TensorBoard's files where they cannot be written.
The number of bytes written (`offset`) belongs into every checkpoint: a resumed run cuts the file back to it, so that
the lines after that checkpoint are written once more, the same, and none is there twice.
NaN and infinities have no spelling in JSON: they are written as null and read back as None.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from wmjax import console
from wmjax.storage import files
from wmjax.types import UsageError

METRICS, EVENTS = "metrics.jsonl", "tensorboard"
X_AXES = ("env_steps", "updates")  # the first that a line has


class MetricsWriter:
    """Appends to the metrics of a working folder.

    Args:
        workdir: the folder of the run.
        resume_at: bytes of metrics.jsonl to keep, the `offset` of the checkpoint that was restored; 0 starts afresh.

    Raises:
        UsageError: metrics.jsonl is shorter than resume_at, so lines of the run are lost, or not of whole lines until
            there: someone changed it. It is left as it is.
    """

    def __init__(self, workdir: str | Path, resume_at: int = 0) -> None:
        path = Path(workdir) / METRICS
        content = path.read_bytes() if path.exists() else b""
        if len(content) < resume_at:
            fault = f"has {len(content)} bytes but the checkpoint was taken at {resume_at}: lines are lost"
            raise UsageError(f"{path} {fault}")
        kept = rows_of(path, content[:resume_at])
        if resume_at and content[resume_at - 1 : resume_at] != b"\n":
            raise UsageError(f"{path} was changed: no line ends at byte {resume_at}, where the checkpoint was taken")
        self._file = open(path, "ab")  # noqa: SIM115  open as long as the run
        self._file.truncate(resume_at)
        self.offset = resume_at
        after_kept = 1 + _step(kept[-1]) if kept else 0
        self._events = console.try_drawing(open_events, Path(workdir) / EVENTS, after_kept)  # None: run without them

    def write(self, metrics: dict[str, Any]) -> None:
        """Appends one line; on the disk when this returns.

        Args:
            metrics: name -> number (Python, numpy or jax scalar); TensorBoard's x axis is the first of X_AXES there is.

        Raises:
            TypeError: a value is not a single number.
            UsageError: the disk is full.
        """
        values = {name: _as_number(name, value) for name, value in metrics.items()}
        line = (json.dumps({name: _finite(value) for name, value in values.items()}) + "\n").encode()
        again = "make room and start the same command again, it resumes from the last checkpoint"
        with files.refused_when_full(f"cannot append to {self._file.name}; {again}"):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        self.offset += len(line)
        if self._events:  # after half an event TensorBoard reads no further one
            self._events = console.try_drawing(add_event, self._events, _scalars(values))

    def close(self) -> None:
        self._file.close()
        if self._events:
            console.try_drawing(self._events.close)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl as dicts; [] if there is no such file.

    A last line without its newline (a kill while it was written) is left out.

    Raises:
        UsageError: a line before the last one is not a JSON object.
    """
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    return rows_of(path, path.read_bytes())


def rows_of(path: Path, content: bytes) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects with this content as dicts; as of `read_metrics`."""
    rows = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # after the last newline: half-written, empty
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"{path} is damaged at line {number}")
        rows.append(row)
    return rows


def open_events(folder: Path, purge_step: int) -> EventsWriter:
    """A new events file; TensorBoard then hides what older files have from `purge_step` on.

    The synchronous writer: the usual SummaryWriter hands events to a thread, which loses them at a kill and hangs the
    process at a full disk.
    """
    folder.mkdir(exist_ok=True)
    writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    writer.write_event(event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=start))
    return writer


def add_event(writer: EventsWriter, event: event_pb2.Event) -> EventsWriter:
    """Writes an event, on the disk when this returns; returns the writer."""
    writer.write_event(event)
    writer.flush()
    return writer


def _scalars(values: dict[str, int | float]) -> event_pb2.Event:
    named = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in values.items() if k != X_AXES[0]]
    summary = summary_pb2.Summary(value=named)
    return event_pb2.Event(wall_time=time.time(), step=_step(values), summary=summary)


def _step(values: dict[str, Any]) -> int:
    return int(next((values[name] for name in X_AXES if name in values), 0))


def _as_number(name: str, value: Any) -> int | float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype == object or array.dtype.kind in "USc":
        raise TypeError(f"metric {name} is not a single number: {array.dtype}{list(array.shape)}")
    if array.dtype.kind in "iub":
        return int(array.reshape(()))
    return float(array.reshape(()))


def _finite(value: int | float) -> int | float | None:
    return value if isinstance(value, int) or math.isfinite(value) else None


def evaluated(returns: np.ndarray) -> dict[str, Any]:
    """The metrics of one member's evaluation. returns: [episodes]."""
    by_episode = {f"eval/return_{i}": value for i, value in enumerate(returns)}
    return {"eval/return_mean": returns.mean(), "eval/return_std": returns.std()} | by_episode


def appended(columns: dict[str, np.ndarray], metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{name: values of all updates so far} after more of them. metrics: {name: [updates]}; columns: {} at first."""
    return {name: np.concatenate([columns.get(name, x[:0]), x]) for name, x in metrics.items()}


def over_tasks(by_task: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The metrics of each member that played several tasks: means over tasks, and "eval/<task>/..." of each task.

    by_task: {task: [metrics of each member]}, of the same names. Of one task alone: its metrics as they are.
    """
    if len(by_task) == 1:
        return next(iter(by_task.values()))
    rows = []
    for of_member in zip(*by_task.values(), strict=True):
        means = {name: np.mean([row[name] for row in of_member]) for name in of_member[0]}
        tasks = zip(by_task, of_member, strict=True)
        rows.append(means | {name.replace("/", f"/{task}/", 1): row[name] for task, row in tasks for name in row})
    return rows


def tasks_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The tasks whose returns are in lines of metrics.jsonl beside their means, in order of appearance; mostly none."""
    found = (re.fullmatch(r"(?:collect|eval)/(.+)/return(?:_mean)?", name) for row in rows for name in row)
    return list(dict.fromkeys(match[1] for match in found if match))


def of_task(rows: Iterable[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with the metrics of one task under the names of the means."""
    return [row | {name.replace(f"/{task}/", "/", 1): row[name] for name in row if f"/{task}/" in name} for row in rows]


def of_its_task(rows: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """As `of_task`, with the environment steps of that task alone, each of several having as many.

    Lines of an agent of one task stay as they are, and so do all where `task` is "". Raises: UsageError for a task that
    is none of several.
    """
    tasks = tasks_of(rows)
    if not task or not tasks:
        return rows
    if task not in tasks:
        raise UsageError(f"task {task!r}: the agent plays {', '.join(tasks)}")
    return [row | {"env_steps": row["env_steps"] / len(tasks)} for row in of_task(rows, task)]
