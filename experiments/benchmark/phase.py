"""Whole cycles of PlaNet's Algorithm 1, as `python -m experiments.planet` runs them: an episode and its updates.

The main itself is started in a folder of its own and its metrics are read, so nothing is left out.
"""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from wmjax import backend
from wmjax.report.benchmark import Work
from wmjax.types import UsageError

CYCLES = dict(quick=3, paper=10)
SEED_EPISODES = 2
PARTS = ("env", "act", "update")  # of metrics time/*
MEMBERS = 4
WAYS = {"in turn": (False, 1), "overlap": (True, 1), f"{MEMBERS} seeds in turn": (False, MEMBERS)}  # overlap, members
QUICK_WAYS = ("in turn", "overlap")


def works(preset: str) -> Iterator[Work]:
    """cheetah_run with the preset that suits the device: one thing after the other, with overlap, several seeds.

    idle: share of a cycle in which the device neither acts nor trains; with overlap from the busy seconds of "in turn".
    """
    config = "cpu" if backend.is_cpu() else "paper"
    busy: list[float] = []
    for way in WAYS if preset == "paper" else QUICK_WAYS:
        overlap, members = WAYS[way]
        rows: list[dict] = []
        work = functools.partial(cycles, rows, config, CYCLES[preset], overlap, members)
        figures = functools.partial(shares, rows, busy, way, members)
        yield Work(f"{config} preset, {way}", work, {"cycles": members}, extra=figures, once=True)


def shares(rows: list[dict[str, Any]], busy: list[float], way: str, members: int) -> dict[str, float]:
    """Times of a cycle alone, without the start of the process; medians of its parts; the device's idle share.

    busy: the device's busy seconds of "in turn", once known.
    """
    totals = [row["time/total"] * 1e3 for row in rows]
    whole = dict(ms=float(np.median(totals)), ms_min=min(totals), ms_max=max(totals))
    seconds = {name: float(np.median([row.get(f"time/{name}", 0.0) for row in rows])) for name in PARTS}
    if way == "in turn":
        busy.append(seconds["act"] + seconds["update"])
    own = busy[0] if way == "overlap" else seconds["act"] + seconds["update"]
    whole |= {"cycles/s": members / whole["ms"] * 1e3, "idle": max(0.0, 1 - own * 1e3 / whole["ms"])}
    return whole | {f"{name}_s": value for name, value in seconds.items()}


def cycles(rows: list[dict[str, Any]], config: str, count: int, overlap: bool, members: int) -> None:
    """Runs the main for a few cycles and keeps their metrics in `rows`; the first one compiles and is left out."""
    from wmjax.report.metrics import read_metrics  # needs a package that the accelerator report does without

    episodes = SEED_EPISODES + count + 2
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "experiments.planet"]
        words += [f"--config=experiments/planet/config.py:cheetah_run,{config}", f"--workdir={folder}/run"]
        words += [f"--config.train.overlap={overlap}", f"--config.population={members}"]
        words += [f"--config.train.episodes={episodes}", f"--config.train.seed_episodes={SEED_EPISODES}"]
        words += ["--config.evaluation.every=1000000", "--config.evaluation.episodes=1"]
        words += ["--config.train.checkpoint_every=1000000"]
        shared = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # this process is on the device too
        ended = subprocess.run(words, env=shared, capture_output=True, text=True)
        if ended.returncode:
            raise UsageError(f"experiments.planet ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
        member = "run" if members == 1 else "run/seed_0"
        rows[:] = read_metrics(f"{folder}/{member}")[SEED_EPISODES + 1 : -1]  # the last one evaluates
