"""One run of PlaNet in two processes that talk over loopback: it is the run of one process with as many devices."""

import signal

import pytest

from tests import mains
from tests.mains import assert_same, metrics, state

STEP = "wmjax.envs.fake:FakeVecEnv.step"
DECISIONS = 12  # of an episode
ROWS = (
    "--config.devices=all",
    "--config.train.num_envs=2",
    "--config.train.seed_episodes=4",
    "--config.train.episodes=6",
)
SPEAKS = "[Gloo]"  # the library that connects processes on CPUs, on standard output


def codes(ended):
    return [each.code for each in ended]


def test_two_processes_are_one_with_two_devices_and_each_resumes_the_other(tmp_path):
    """Asked to end by a signal to the second process while they play; goes on in one for an episode, then in two again.

    Tolerance: none. Of two devices there are only two addends, whose sum has no order.
    """
    one = mains.start(tmp_path / "one", *ROWS, devices=2)
    assert one.code == 0, one.stderr
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
    said = [line for line in again[1].stdout.splitlines() if not line.startswith((SPEAKS, "moves: 0"))]
    assert said == [] and again[1].stderr == "", again[1]
    assert metrics(folder) == metrics(tmp_path / "one")
    (saved, rows), (saved_by_one, rows_of_one) = state(folder), state(tmp_path / "one")
    assert_same(rows, rows_of_one)
    assert_same(saved["learner"], saved_by_one["learner"])
    for each in (saved, saved_by_one):
        for pool in ("env", "eval_env"):
            del each[pool]["counter"]["0"]["identity"]
    assert_same(saved, saved_by_one)


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
