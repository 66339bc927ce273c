"""Many seeds in one program, and one run on many devices: the same numbers as alone on one device."""

import json
import signal

import jax
import numpy as np
import pytest

from tests import mains
from tests.mains import metrics
from wmjax.run import devices
from wmjax.types import UsageError

# Sums are taken in another order, so the last bits differ; a planner may then choose another elite now and then.
CLOSE = dict(rtol=2e-3, atol=2e-3)
MANY_ROWS = (
    "--config.train.num_envs=8",
    "--config.train.batch=8",
    "--config.train.episodes=40",
    "--config.train.seed_episodes=16",
    "--config.train.replay_rows=320",
    "--config.evaluation.episodes=8",
)


def assert_close(rows, others):
    assert len(rows) == len(others) > 0
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], err_msg=f"{name} of episode {row['episodes']}", **CLOSE)


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population") / "run"
    ended = mains.start(folder, "--config.population=2", "--config.seed=3", drawn=True)
    assert ended.code == 0, ended.stderr
    return folder


def test_a_member_is_the_run_of_its_seed(population, tmp_path_factory):
    alone, _ = mains.whole_run(tmp_path_factory)
    assert json.loads((alone / "config.json").read_text())["seed"] == 4
    assert_close(metrics(population / "seed_4"), metrics(alone))


def test_members_differ_and_each_has_a_report(population):
    first, second = (metrics(population / f"seed_{seed}") for seed in (3, 4))
    assert first[-1]["train/loss"] != second[-1]["train/loss"]
    for seed in (3, 4):
        assert "return" in (population / f"seed_{seed}" / "report.html").read_text()
        assert (population / f"seed_{seed}" / "videos" / "episode_000005.mp4").stat().st_size > 0
    page = (population / "report.html").read_text()
    assert "seed_3/report.html" in page and "seed_4/report.html" in page and "mean of 2" in page


@pytest.mark.slow
def test_a_killed_population_ends_as_if_never_killed(population, tmp_path):
    flags = ("--config.population=2", "--config.seed=3")
    killed = mains.start(tmp_path / "run", *flags, kill_at=25)
    assert killed.code == -signal.SIGKILL
    assert mains.start(tmp_path / "run", *flags).code == 0
    for seed in (3, 4):
        assert metrics(tmp_path / "run" / f"seed_{seed}") == metrics(population / f"seed_{seed}")


def test_a_nan_names_the_member_and_keeps_the_last_checkpoint(tmp_path):
    ended = mains.start(tmp_path / "run", "--config.population=2", "--config.model.learning_rate=1e30")
    assert ended.code == 3
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "seed_4, update 2" in ended.stderr and "is not finite" in ended.stderr
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


def test_evaluate_plays_one_member(population):
    returns = []
    for member in (0, 1):
        ended = mains.call("evaluate", f"--workdir={population}", "--episodes=1", f"--member={member}")
        assert ended.code == 0, ended.stderr
        returns.append(ended.stdout.splitlines()[0])
    assert returns[0] != returns[1]
    ended = mains.call("evaluate", f"--workdir={population}", "--member=2")
    assert ended.code == 2 and "--member=2: the run has 2" in ended.stderr


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices") / "run"
    ended = mains.start(folder, *MANY_ROWS)
    assert ended.code == 0, ended.stderr
    return metrics(folder)


@pytest.mark.slow
def test_eight_devices_compute_what_one_does_and_their_checkpoint_serves_others(on_one, tmp_path):
    """Killed on 8 devices, ended on 1. With two: test_processes.py."""
    folder = tmp_path / "moved"
    killed = mains.start(folder, *MANY_ROWS, "--config.devices=all", kill_at=24, devices=8)
    assert killed.code == -signal.SIGKILL
    ended = mains.start(folder, *MANY_ROWS)
    assert ended.code == 0 and "resumed" in ended.stdout, ended.stderr
    assert_close(metrics(folder), on_one)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--config.devices=3"], "config.devices=3: this machine has 2"),
        (["--config.devices=0"], "config.devices=0: give all, or a number from 1 to 2"),
        (["--config.devices=many"], "config.devices=many: give all, or a number from 1 to 2"),
        (["--config.devices=2"], "config.train.num_envs=1 cannot be split over 2 devices: give a multiple of 2"),
        (["--config.population=0"], "config.population=0: must be an integer from 1 to 1024 for each task"),
        (["--config.population=4", "--config.train.replay_rows=2000000000"], "rows for 4 x 1 environments needs"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(flags, named, tmp_path):
    ended = mains.start(tmp_path / "run", *flags, devices=2)
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert len(ended.stderr.strip().splitlines()) == 1 and named in ended.stderr, ended.stderr


def test_a_mesh_has_the_devices_that_were_asked_for():
    assert devices.make_mesh("1").size == devices.make_mesh(1).size == 1
    assert devices.make_mesh("all").size == len(jax.devices())
    with pytest.raises(UsageError, match="give all"):
        devices.make_mesh("-1")
