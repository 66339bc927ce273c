"""Nine cells of PlaNet that are killed twice end as those that nobody disturbed (docs/lab/2026-11-29-sweep.md).

mkdir -p runs && python -m pytest -m slow -s --basetemp=runs/sweep tests/launch/test_killed_sweep.py
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import mains

EPISODES, CELLS = 12, [f"kind_{kind}_seed_{seed}" for kind in ("rssm", "ssm", "rnn") for seed in range(3)]
WORDS = (
    "--main=experiments.planet",
    *(word for word in mains.PLANET if "train.episodes" not in word),
    f"--config.train.episodes={EPISODES}",
    "--set=model.kind=rssm,ssm,rnn",
    "--set=seed=0:3",
    "--jobs=2",
)


def drive(folder):
    """A driver in a session of its own, which its runs are in as well."""
    command = [sys.executable, "-m", "launch.sweep", f"--folder={folder}", *WORDS]
    return subprocess.Popen(command, cwd=mains.ROOT, stdout=subprocess.DEVNULL, start_new_session=True)


def kill(driver):
    """Kills the driver and then all its runs: how many."""
    driver.kill()
    driver.wait()
    runs = 0
    for process in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process) == driver.pid:
                os.kill(process, signal.SIGKILL)
                runs += 1
    return runs


def lines(folder):
    """How many lines of metrics the cells have, in all: one an episode."""
    return sum(path.read_text().count("\n") for path in folder.glob("*/metrics.jsonl"))


@pytest.mark.slow
def test_nine_cells_killed_twice_equal_undisturbed_ones(tmp_path):
    whole, killed, chance = tmp_path / "whole", tmp_path / "killed", random.Random()
    assert drive(whole).wait() == 0 and lines(whole) == EPISODES * len(CELLS)
    for low, high in ((0.1, 0.4), (0.5, 0.9)):  # of the sweep
        moment, delay = chance.uniform(low, high) * EPISODES * len(CELLS), chance.uniform(0, 3)
        driver = drive(killed)
        while lines(killed) < moment:
            assert driver.poll() is None
            time.sleep(0.05)
        time.sleep(delay)
        runs = kill(driver)
        print(f"killed: the driver and {runs} runs, {delay:.1f} s after line {moment:.0f} of {EPISODES * len(CELLS)}")
        assert runs, "no run was under way"
    assert drive(killed).wait() == 0
    begun = [(killed / f"{name}.log").read_text().count("\n$ ") + 1 for name in CELLS]
    assert sum(begun) > len(CELLS)
    assert (killed / "sweep.csv").read_text() == (whole / "sweep.csv").read_text()
    for name, starts in zip(CELLS, begun, strict=True):
        rows, file = mains.metrics(killed / name), "metrics.jsonl"
        mains.assert_as_whole(killed / name, (whole / name,))
        print(f"{name}: {starts} starts, {len(rows)} equal lines of {file}, return {rows[-1]['eval/return_mean']:.4g}")
