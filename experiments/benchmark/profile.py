"""Where the time of a decision and of an update goes: jax's own trace of them, and how long no kernel ran.

`jax.profiler` leaves a trace in the format of Chrome's viewer beside its own one; the standard library reads it.
Kernels are what ran on a GPU's streams or a TPU's operations, of a CPU the operations of XLA's executor.
"""

import functools
import gzip
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from experiments.benchmark import planner, train
from experiments.benchmark.data import FLOAT, HALF
from wmjax import backend
from wmjax.report.benchmark import Finding, Work

CALLS = 3  # in the trace
WINDOW = "benchmark window"
LONGEST = 3  # kernels that are named
# Process and thread of a platform's kernels begin so.
LANES = dict(gpu=("/device:GPU", "Stream"), tpu=("/device:TPU", "XLA Ops"), cpu=("/host:CPU", "tf_XLA"))
# What encloses operations, or waits for them, on a CPU's threads.
ENCLOSING = ("end: ", "Thunk", "Threadpool", "while", "call", "conditional", "jit_")
UPDATE = dict(quick=(16, 20), paper=(50, 50), accelerator=(50, 50), dry=(2, 3))
DTYPES = dict(quick=(FLOAT, HALF), paper=(FLOAT, HALF), accelerator=(FLOAT,), dry=(FLOAT,))


class Kernel(NamedTuple):
    """Times in microseconds."""

    name: str
    begins: float
    ends: float


def works(preset: str) -> Iterator[Finding]:
    """A decision for one environment and an update."""
    for dtype in DTYPES[preset]:
        for work in (planner.decision(preset, "rssm", 1, dtype), train.update(preset, *UPDATE[preset], dtype)):
            yield Finding(work.name, functools.partial(profiled, work))


def profiled(work: Work) -> dict[str, Any]:
    """Figures of CALLS calls of a Work, compiled before them: what `figures` finds in their trace."""
    work.prepare()
    jax.block_until_ready(work.call())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python would slow down what is measured
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options), jax.profiler.TraceAnnotation(WINDOW):
            for _ in range(CALLS):
                jax.block_until_ready(work.call())
        return figures(read_trace(pathlib.Path(folder)), backend.name())


def read_trace(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The events of the trace that jax left somewhere in a folder; [] where it left none."""
    traces = sorted(folder.rglob("*.trace.json.gz"))
    return json.loads(gzip.decompress(traces[-1].read_bytes()))["traceEvents"] if traces else []


def figures(events: Sequence[dict[str, Any]], platform: str) -> dict[str, Any]:
    """ms of a call, kernels of a call, gaps (the share of the time in which none ran), and the longest by name.

    Args: events: of a trace; platform: cpu, gpu or tpu. failed where an accelerator's trace names no kernels.
    """
    window = next((event for event in events if event.get("name") == WINDOW and event.get("ph") == "X"), None)
    begins, ends = (window["ts"], window["ts"] + window["dur"]) if window else (0.0, 0.0)
    found = kernels(events, platform, begins, ends)
    if not found:
        return {"told" if platform == "cpu" else "failed": "not available: the trace names no kernels"}
    by_name: dict[str, float] = {}
    for name, start, end in found:
        by_name[name] = by_name.get(name, 0.0) + end - start
    whole = sum(by_name.values())
    names = sorted(by_name, key=by_name.__getitem__, reverse=True)[:LONGEST]
    longest = [f"{name} {by_name[name] / whole:.0%}" for name in names]
    gaps = 1 - covered(found) / (ends - begins)
    ms = (ends - begins) / 1e3 / CALLS
    return dict(ms=ms, gaps=gaps, kernels=len(found) // CALLS, longest=", ".join(longest))


def kernels(events: Sequence[dict[str, Any]], platform: str, begins: float, ends: float) -> list[Kernel]:
    """What ran on the platform's LANES between two times, clipped to them."""
    process, thread = LANES[platform]
    metadata = [event for event in events if event.get("ph") == "M"]
    processes = {event["pid"]: event["args"]["name"] for event in metadata if event["name"] == "process_name"}
    named = [event for event in metadata if event["name"] == "thread_name"]
    threads = {(event["pid"], event["tid"]): event["args"]["name"] for event in named}
    lanes = {
        lane
        for lane, name in threads.items()
        if name.startswith(thread) and processes.get(lane[0], "").startswith(process)
    }
    found = [
        Kernel(event["name"], max(event["ts"], begins), min(event["ts"] + event["dur"], ends))
        for event in events
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in lanes
    ]
    enclosing = ENCLOSING if platform == "cpu" else ()
    return [each for each in found if each.begins < each.ends and not each.name.startswith(enclosing)]


def covered(found: Sequence[Kernel]) -> float:
    """Microseconds in which at least one kernel ran."""
    total, until = 0.0, float("-inf")
    for _, begins, ends in sorted(found, key=lambda kernel: kernel.begins):
        total += max(0.0, ends - max(begins, until))
        until = max(until, ends)
    return total
