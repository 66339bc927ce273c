"""Slots, the ledger, and the queue of processes that tables and sweeps share."""

import contextlib
import os
import pathlib
import re
import sys
import time

import pytest

from experiments import runs
from tests import mains
from wmjax.run import jobs, stop
from wmjax.run.jobs import Ended
from wmjax.types import UsageError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_before():
    yield
    stop.forget()


def python(folder, program):
    """A Job that is a line of Python."""
    return jobs.Job(folder, [sys.executable, "-Sc", program])


def test_cores_are_split_evenly_and_gpus_shared(monkeypatch):
    monkeypatch.setattr(jobs.shutil, "which", lambda name: f"/bin/{name}")
    prefixes = lambda slots: [slot.prefix[2] for slot in slots]
    assert prefixes(jobs.make_slots(2, [0, 1, 2, 3, 5])) == ["0,1", "2,3,5"]
    assert prefixes(jobs.make_slots(3, [4])) == ["4", "4", "4"]
    slots = jobs.make_slots(4, range(4), ["0", "GPU-b"], 2)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "GPU-b", "0", "GPU-b"]
    assert {slot.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] for slot in slots} == {"0.450"}
    alone = jobs.make_slots(9, range(4), ["0", "1"], 1)
    assert prefixes(alone) == ["0,1", "2,3"]
    assert all("XLA_PYTHON_CLIENT_MEM_FRACTION" not in slot.environment for slot in alone)
    monkeypatch.setattr(jobs.shutil, "which", lambda name: None)
    assert jobs.make_slots(1, [0])[0].prefix == ()


def test_gpus_are_those_that_the_user_may_use(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A (UUID: a)\n  MIG 1g\nGPU 1: B (UUID: b)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert jobs.visible_gpus({}) == ["0", "1"]
    assert jobs.visible_gpus(dict(CUDA_VISIBLE_DEVICES="3,GPU-a")) == ["3", "GPU-a"]
    assert jobs.visible_gpus(dict(CUDA_VISIBLE_DEVICES="")) == jobs.visible_gpus(dict(JAX_PLATFORMS="cpu")) == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert jobs.visible_gpus({}) == []


def test_the_allocator_is_that_of_the_makefile():
    text = re.search(r"^FAST_MALLOC := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert dict(word.split("=", 1) for word in text.replace("\\\n", " ").split()) == jobs.ALLOCATOR


def test_the_users_environment_goes_first_but_for_the_gpu(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    slot = jobs.Slot(("taskset", "-c", "1"), {"MALLOC_TOP_PAD_": "8", "CUDA_VISIBLE_DEVICES": "1", "A": "b c"}, "")
    line = jobs.shell(jobs.Job(ROOT, ["python", "-m", "x", "--config.y='z'"]), slot)
    assert line == "env CUDA_VISIBLE_DEVICES=1 'A=b c' taskset -c 1 python -m x '--config.y='\"'\"'z'\"'\"''"


@pytest.mark.parametrize(
    ("ended", "goes_on"),
    [(Ended(0, "", 0), False), (Ended(2, "", 1), False), (Ended(3, "", 1), False), (Ended(75, "", 9), True)]
    + [(Ended(1, "", 2), True), (Ended(137, "", 3), False)],
)
def test_the_exit_code_decides(ended, goes_on):
    assert jobs.goes_on(ended, 3) == goes_on


def test_what_a_run_printed_last_is_kept(tmp_path):
    program = "print('first'); print('\\r\\x1b[2K 1/2\\r\\x1b[2K 2/2', end=''); raise SystemExit(3)"
    slots = jobs.make_slots(1, jobs.allowed_cores())
    folder = tmp_path / "a.b"
    assert list(jobs.run_all([python(folder, program)], slots, 3)) == [(python(folder, program), (3, "2/2", 1))]
    assert jobs.read_ended(folder) == (3, "2/2", 1) and jobs.state(folder, 3) == "failed"
    assert jobs.log_of(folder).read_text().count("first\n") == 1
    assert list(jobs.run_all([python(folder, "")], slots, 3))[0][1] == (0, "", 1)
    jobs.exit_of(folder).write_text("{")
    assert jobs.read_ended(folder) is None and jobs.state(folder, 3) == "waiting"
    jobs.forget(folder)
    jobs.forget(folder)


def test_when_a_queue_is_left_the_others_end_in_order(tmp_path):
    sleep = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('on', flush=True); time.sleep(60)"
    )
    slow, quick, never = tmp_path / "slow", tmp_path / "quick", tmp_path / "never"
    wait = f"import os, time\nwhile 'on\\n' not in open({str(jobs.log_of(slow))!r}).readlines(): time.sleep(0.01)"
    work = [python(slow, sleep), python(quick, wait), python(never, "")]
    begun = time.monotonic()
    with contextlib.closing(jobs.run_all(work, jobs.make_slots(2, jobs.allowed_cores()), 3)) as ends:
        assert next(ends)[0].folder == quick
    assert jobs.read_ended(slow).code == 75 and jobs.state(slow, 3) == "stopped" and not jobs.log_of(never).exists()
    assert time.monotonic() - begun < 30


def test_tables_end_at_the_first_failure(tmp_path):
    work = [python(tmp_path / "a", ""), python(tmp_path / "b", "print('no'); raise SystemExit(1)")]
    with pytest.raises(UsageError) as error:
        runs.train_all([*work, python(tmp_path / "c", "")])
    folder = tmp_path / "b"
    assert str(error.value) == f"{folder}: training ended with exit code 1: no; see {folder}.log"
    assert not (tmp_path / "c.log").exists() and not stop._listening


def test_a_run_that_diverges_does_not_end_the_others(tmp_path):
    work = [python(tmp_path / "a", "print('nan'); raise SystemExit(3)"), python(tmp_path / "b", "")]
    diverged = runs.train_or_diverge(work)
    assert list(diverged) == [tmp_path / "a"] and diverged[tmp_path / "a"].last == "nan"
    with pytest.raises(UsageError, match="a: training ended with exit code 3: nan; see"):
        runs.train_all(work)
    assert jobs.read_ended(tmp_path / "b").code == 0


def test_what_is_done_is_not_started_again(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "state", lambda folder, tries: "done" if folder.name == "a" else "stopped")
    monkeypatch.setattr(runs, "train_all", lambda trainings, cores: started.append((trainings, cores)))
    runs.train_missing([python(tmp_path / name, "") for name in "ab"], ["0"])
    ((trained, cores),) = started
    assert [job.folder.name for job in trained] == ["b"] and cores == ["0"]


@pytest.mark.parametrize(
    "command",
    [
        "planet.figures --parts=simulator",
        "planet.simulator",
        "planet.planner_sweep",
        "i2a.table --model=simulator --agents=model_free",
        "trade_offs.study --preset=smoke --tasks=fake:counter",
        "environment_models.table",
        "environment_models.ablations --data=ball",
    ],
)
def test_a_folder_of_somebody_elses_files_stays_as_it_was(command, tmp_path, monkeypatch):
    monkeypatch.delattr(jobs, "run_all")
    monkeypatch.delattr("experiments.planet.simulator.play")
    (tmp_path / "thesis.tex").touch()
    ended = mains.call(*command.split(), f"--folder={tmp_path}")
    assert ended.code == 2 and "has files (thesis.tex), none of them this command's" in ended.stderr
    assert ended.stderr.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
