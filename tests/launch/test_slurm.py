"""The engine of clusters: submitit's own executors that need none, and a slurm of three shell scripts."""

import importlib.util
import json
import os
import signal

import pytest
import submitit

from launch import slurm, sweep
from tests.launch.driving import MAIN, starts, wait_for
from wmjax.run import cli, jobs

SBATCH = """#!/bin/sh
# Runs every task of the array at once. The file is kept.
cp "$1" "$SLURM_TEST/submitted.$$"
tasks=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
export SLURM_JOB_ID=$$ SLURM_NTASKS=1
for task in $(seq 0 "${tasks:-0}"); do
    [ -z "$tasks" ] || export SLURM_ARRAY_JOB_ID=$$ SLURM_ARRAY_TASK_ID=$task
    sh "$1" >/dev/null 2>>"$SLURM_TEST/errors" &
done
echo "Submitted batch job $$"
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do case $1 in --output | --error) shift 2 ;; *) shift ;; esac; done
exec "$@"
"""
SQUEUE = '#!/bin/sh\ncat "$SLURM_TEST/queue" 2>/dev/null\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with the programs of slurm, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, content in dict(sbatch=SBATCH, srun=SRUN, squeue=SQUEUE, sacct="#!/bin/sh\n").items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_TEST", str(folder))
    return folder


def call(folder, *words):
    return cli.run(sweep.main, ["sweep", f"--folder={folder}", "--engine=slurm", *words])


def job(folder, fault):
    settings = [f"fault={fault}"]
    return jobs.training("tests.launch.stub", folder, "tests/launch/stub/config.py:fake:counter,cpu", settings)


def test_in_this_process_by_the_debug_executor(tmp_path):
    executor = submitit.DebugExecutor(tmp_path / "slurm")
    slurm.run_on(executor, [job(tmp_path / "a", ""), job(tmp_path / "b", "first:1"), job(tmp_path / "c", "exit:3")], 3)
    assert starts(tmp_path) == dict(a=1, b=2, c=1)
    assert [jobs.read_ended(tmp_path / name).code for name in "abc"] == [0, 0, 3]


def test_at_the_time_limit_a_run_saves_and_goes_on(tmp_path):
    executor = submitit.LocalExecutor(tmp_path / "slurm", max_num_timeout=9)
    executor.update_parameters(timeout_min=5)
    submitted = executor.submit(slurm.Resumed(job(tmp_path / "a", "nap:60"), 1))
    wait_for(lambda: (tmp_path / "asleep").exists() and (tmp_path / "asleep").read_text())
    for pid in (json.loads((tmp_path / "a.starts").read_text())["pid"], int((tmp_path / "asleep").read_text())):
        os.kill(pid, signal.SIGUSR2)  # as slurm does before the limit; some versions to all processes of a job
    submitted.wait()
    assert submitted.exception() is None
    assert starts(tmp_path) == dict(a=2) and jobs.read_ended(tmp_path / "a") == (0, "begins", 0)
    assert "Requeued job" in submitted.stderr() + submitted.stdout()


def test_a_sweep_by_sbatch(tmp_path, cluster, capsys):
    folder = tmp_path / "s"
    options = (
        "--slurm=partition=gpu",
        "--slurm=time=01:30:00",
        "--slurm=gpus_per_node=1",
        "--slurm=array_parallelism=8",
    )
    assert call(folder, *MAIN, "--set=seed=0,1", *options) == 0, (cluster / "errors").read_text()
    (submitted,) = (path.read_text() for path in cluster.glob("submitted.*"))
    for line in ("partition=gpu", "time=90", "gpus-per-node=1", "array=0-1%2", f"job-name={slurm.job_name(folder)}"):
        assert f"#SBATCH --{line}\n" in submitted
    assert starts(folder) == dict(seed_0=1, seed_1=1) and "2 cells: 2 done" in capsys.readouterr().out


def test_dry_run_needs_no_slot(tmp_path, cluster, capsys):
    assert call(tmp_path / "s", *MAIN, "--set=seed=0,1", "--dry_run") == 0
    assert "taskset" not in capsys.readouterr().out and not (tmp_path / "s").exists()


def test_times_are_minutes():
    found = {text: slurm.minutes(text) for text in ("30", "30:00", "00:30:01", "04:00:00", "1-00:30", "2-1")}
    assert list(found.values()) == [30, 30, 31, 240, 1470, 2940]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slurm=partition"], "--slurm=partition: give key=value"),
        (["--slurm=time=soon"], "--slurm=time=soon: give minutes"),
        (["--slurm=partitio=gpu"], "--slurm: Unavailable parameter(s): ['partitio']"),
    ],
)
def test_refusals(words, told, tmp_path, cluster, capsys):
    assert call(tmp_path / "s", *MAIN, "--set=seed=0,1", *words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not (tmp_path / "s").exists()


def test_what_is_missing_is_told(tmp_path, cluster, monkeypatch, capsys):
    (cluster / "queue").write_text("77 gpu sweep\n78 gpu sweep\n")
    words = (tmp_path / "s", *MAIN, "--set=seed=0,1")
    assert call(*words) == 2 and "2 jobs of this sweep are in the queue" in capsys.readouterr().err
    (cluster / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(cluster))
    assert call(*words) == 2 and "there is no sbatch on PATH" in capsys.readouterr().err
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "submitit" else find_spec(name))
    assert call(*words) == 2
    assert capsys.readouterr().err == f"error: --engine=slurm needs submitit: {slurm.INSTALL}\n"
    assert not (tmp_path / "s").exists()
