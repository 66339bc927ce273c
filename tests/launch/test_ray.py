"""The engine of ray's clusters: over a stand-in whose tasks are processes, and where ray is, over ray itself."""

import importlib.machinery
import importlib.util
import os
import signal
import sys
import threading
import time
import types

import pytest

from launch import ray as engine
from launch import sweep
from tests.launch.driving import MAIN, drive, starts, wait_for
from tests.mains import forked
from wmjax.run import cli, jobs


class StandIn(types.ModuleType):
    """What the engine takes of ray, for a cluster with two GPUs; a reference is the process of a task."""

    exceptions = types.SimpleNamespace(RayError=ChildProcessError)

    def __init__(self):
        super().__init__("ray")
        self.__spec__ = importlib.machinery.ModuleSpec("ray", None)
        self.asked, self.most = [], 0

    def init(self, **options):
        pass

    def cluster_resources(self):
        return dict(CPU=8.0, GPU=2.0)

    def remote(self, **options):
        self.asked.append(options)
        return lambda function: types.SimpleNamespace(remote=lambda *args: forked(function, *args))

    def wait(self, references, num_returns=1, timeout=60):
        self.most, until = max(self.most, len(references)), time.monotonic() + timeout
        while True:
            ended = [each for each in references if each.exitcode is not None]
            if len(ended) >= num_returns or time.monotonic() > until:
                return ended, [each for each in references if each not in ended]
            time.sleep(0.02)

    def get(self, reference):
        if reference.exitcode:
            raise ChildProcessError(f"a traceback\nthe task died: {reference.exitcode}")

    def cancel(self, reference):
        os.kill(reference.pid, signal.SIGINT)


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", StandIn())
    return sys.modules["ray"]


def call(folder, *words):
    return cli.run(sweep.main, ["sweep", f"--folder={folder}", "--engine=ray", *words])


def test_exit_codes_decide(tmp_path, ray, capsys):
    assert call(tmp_path, *MAIN, "--set=fault=exit:3,first:75,kill", "--jobs=2", "--per_gpu=3") == 2
    out, err = capsys.readouterr()
    names = {name.removeprefix("fault_").rpartition("-")[0] or "kill": name for name in starts(tmp_path)}
    assert {fault: starts(tmp_path)[name] for fault, name in names.items()} == {"exit-3": 1, "first-75": 2, "kill": 2}
    found = {fault: jobs.read_ended(tmp_path / name) for fault, name in names.items()}
    assert {fault: (each.code, each.tries) for fault, each in found.items()} == {
        "exit-3": (3, 1),
        "first-75": (0, 0),
        "kill": (0, 1),
    }
    assert "error: 1 of 3 cells failed" in err and "fault_kill: exit code 0: begins" in out
    assert ray.asked == [dict(num_gpus=1 / 3, max_retries=0)] and ray.most == 2
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.300" in (tmp_path / "fault_kill.log").read_text().splitlines()[0]


def test_after_a_signal_the_runs_save(tmp_path, ray, capsys):
    def interrupt():
        wait_for((tmp_path / "asleep").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert call(tmp_path, *MAIN, "--set=fault=sleep:60", "--set=seed=0,1", "--jobs=1") == 75
    thread.join()
    (name,) = starts(tmp_path)
    assert jobs.read_ended(tmp_path / name) == (75, "begins", 0)
    assert "stopped by SIGTERM: the same command goes on" in capsys.readouterr().err


def test_a_task_that_died_counts_as_a_try(tmp_path, ray):
    job = jobs.training("tests.launch.stub", tmp_path / "a", "tests/launch/stub/config.py:fake:counter,cpu", [])
    begun = []
    engine.run_on(ray, lambda job: begun.append(job) or forked(os.abort), [job], 2, 1)
    assert begun == [job, job] and jobs.read_ended(job.folder) == (1, "ray: the task died: -6", 2)


def test_what_is_missing_is_told(tmp_path, ray, monkeypatch, capsys):
    def unreachable(**options):
        raise Exception("nobody answers")

    words = (tmp_path / "s", *MAIN, "--set=seed=0,1")
    monkeypatch.setattr(ray, "init", unreachable)
    assert call(*words) == 2 and capsys.readouterr().err == "error: --engine=ray: nobody answers\n"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    assert call(*words, "--dry_run") == 0 and capsys.readouterr().out.count("-m tests.launch.stub") == 2
    assert call(*words) == 2
    assert capsys.readouterr().err == f"error: --engine=ray needs the extra wmjax[ray]: {engine.INSTALL}\n"
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra wmjax[ray]")
def test_by_ray_itself(tmp_path, capfd):
    """Exit codes, a signal, a killed driver."""
    first = drive(tmp_path / "codes", *MAIN, "--engine=ray", "--set=fault=exit:3,first:75,first:1,kill")
    assert first.wait() == 2 and "4 cells: 1 failed, 3 done" in capfd.readouterr().out
    assert list(starts(tmp_path / "codes").values()) == [1, 2, 2, 2]
    folder, words = tmp_path / "slept", (*MAIN, "--engine=ray", "--set=fault=nap:10", "--set=seed=0:3")
    for number, code, done in ((signal.SIGTERM, 75, []), (signal.SIGKILL, -9, [0])):
        driver = drive(folder, *words, "--jobs=1")
        wait_for((folder / "asleep").exists, 300)  # ray takes its time to begin
        driver.send_signal(number)
        assert driver.wait() == code
        ended = [jobs.read_ended(folder / name) for name in starts(folder)]
        assert [each.code for each in ended if each] == (done or [75])
        (folder / "asleep").unlink()
    assert drive(folder, *words).wait() == 0
    assert [jobs.state(folder / name, 3) for name in starts(folder)] == ["done"] * 3
