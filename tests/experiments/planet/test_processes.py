"""One run of PlaNet in two processes that talk over loopback: it is the run of one process with as many devices."""

import signal

import numpy as np
import pytest

from tests import mains
from tests.mains import assert_same, metrics, state

STEP = "wmjax.envs.fake:FakeVecEnv.step"
DECISIONS = 12  # of an episode
ROWS = (
    "--config.devices=all",
    "--config.train.num_envs=2",
    "--config.train.seed_episodes=4",
    "--config.train.episodes=8",
)
SPEAKS = "[Gloo]"  # the library that connects processes on CPUs, on standard output


def codes(ended):
    return [each.code for each in ended]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of a run in one process with two devices."""
    folder = tmp_path_factory.mktemp("one") / "run"
    ended = mains.start(folder, *ROWS, devices=2)
    assert ended.code == 0, ended.stderr
    return folder


def assert_one_run(folder, other):
    """The same metrics, rows and checkpoint but for what names the pools. Tolerance: none.

    Of two devices there are only two addends, whose sum has no order.
    """
    assert metrics(folder) == metrics(other)
    (saved, rows), (expected, expected_rows) = state(folder), state(other)
    assert_same(rows, expected_rows)
    for each in (saved, expected):
        for pool in ("env", "eval_env"):
            del each[pool]["counter"]["0"]["identity"]
    assert_same(saved, expected)


def test_two_processes_are_one_with_two_devices(one, tmp_path):
    two = mains.together(tmp_path / "run", *ROWS)
    assert codes(two) == [0, 0], two
    said = [line for line in two[1].stdout.splitlines() if not line.startswith((SPEAKS, "moves: 0"))]
    assert said == [] and two[1].stderr == "", two[1]
    assert_one_run(tmp_path / "run", one)


@pytest.mark.slow
def test_two_processes_resume_one_and_are_resumed_by_it(one, tmp_path):
    """Asked to end by a signal to the second process while they play; goes on in one for an episode, then in two."""
    folder = tmp_path / "two"
    asked = mains.together(folder, *ROWS, of_second=dict(stop_at=(STEP, DECISIONS + 5)))
    assert codes(asked) == [75, 75], asked
    assert asked[0].stderr == "stopped by SIGTERM: the same command goes on\n"
    assert len(metrics(folder)) == 1 and mains.summary(folder)["episodes"] == 2
    went_on = mains.start(folder, *ROWS, devices=2, stop_at=(STEP, DECISIONS))
    assert went_on.code == 75 and "resumed after episode 2\n" in went_on.stdout, went_on.stderr
    again = mains.together(folder, *ROWS)
    assert codes(again) == [0, 0], again
    assert again[0].stdout.count("resumed after episode 4\n") == 1
    assert_one_run(folder, one)


def test_a_run_of_two_devices_goes_on_with_one(one, tmp_path):
    """Killed on two. Sums are taken in another order, so the last bits differ."""
    killed = mains.start(tmp_path / "run", *ROWS, devices=2, kill_at="episode_000008.mp4")
    assert killed.code == -signal.SIGKILL and 0 < len(metrics(tmp_path / "run")) < len(metrics(one))
    ended = mains.start(tmp_path / "run", *ROWS, "--config.devices=1")
    assert ended.code == 0 and "resumed" in ended.stdout, ended.stderr
    for row, other in zip(metrics(tmp_path / "run"), metrics(one), strict=True):
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_members_whose_rows_end_apart_are_shared_row_by_row(tmp_path):
    flags = (*ROWS, "--config=experiments/planet/config.py:fake:terminating,cpu", "--config.population=2")
    one = mains.start(tmp_path / "one", *flags, devices=2)
    assert one.code == 0, one.stderr
    two = mains.together(tmp_path / "two", *flags)
    assert codes(two) == [0, 0], two
    for name in ("seed_4", "seed_5"):
        assert metrics(tmp_path / "two" / name) == metrics(tmp_path / "one" / name)
    assert_same(state(tmp_path / "two")[1], state(tmp_path / "one")[1])


def test_a_process_that_dies_ends_the_other(tmp_path):
    ended = mains.together(tmp_path / "run", *ROWS, of_second=dict(stop_at=(STEP, 5, signal.SIGKILL)))
    assert ended[1].code == -signal.SIGKILL and ended[0].code not in (0, 75), ended
    assert ended[0].at - ended[1].at < 30


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--config.train.batch=3"], "config.train.batch=3 cannot be split over 2 devices: give a multiple of 2"),
        (["--config.devices=1"], "config.devices=1: cannot be split over 2 processes"),
    ],
)
def test_an_uneven_division_is_refused_once(flags, named, tmp_path):
    ended = mains.together(tmp_path / "run", *ROWS, *flags)
    assert codes(ended) == [2, 2] and not (tmp_path / "run").exists()
    assert ended[0].stderr == f"error: {named}\n" and ended[1].stderr == "", ended
