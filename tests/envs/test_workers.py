"""Rows in worker processes: the steps and snapshots of one process, and what becomes of errors."""

import time

import numpy as np
import pytest

from tests.mains import ROOT
from tests.steps import assert_equal
from wmjax import envs
from wmjax.types import UsageError

NAME = "py:tests.gym_walk:FragileWalk"


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def pool():
    """Three rows, of which the first worker has two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = envs.make(NAME, 3, 1, size=8, workers=2)
    yield made
    made.close()


def assert_same_snapshot(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_steps_and_snapshots_are_those_of_one_process(pool):
    alone = envs.make(NAME, 3, 1, size=8)
    assert pool.spec == alone.spec
    with pytest.raises(UsageError, match="before reset"):
        pool.step(np.zeros((3, 2)))
    assert_equal(pool.reset(), alone.reset())
    actions = np.random.default_rng(0).uniform(-0.9, 0.9, (14, 3, 2))
    for action in actions[:7]:
        step = alone.step(action)
        assert_equal(pool.step(action), step)
    snapshot = pool.snapshot()
    assert_same_snapshot(snapshot, alone.snapshot())
    future = [alone.step(action) for action in actions[7:]]
    for back in (alone, pool):  # each from the snapshot of both
        assert_equal(back.restore(snapshot), step)
        for action, expected in zip(actions[7:], future, strict=True):
            assert_equal(back.step(action), expected)
    assert_same_snapshot(pool.snapshot(), alone.snapshot())


def test_after_an_error_or_a_death_restoring_goes_on(pool):
    pool.reset()
    good, bad = np.zeros((3, 2)), np.zeros((3, 2))
    step, snapshot = pool.step(good), pool.snapshot()
    bad[2, 0] = 1
    with pytest.raises(RuntimeError, match="the simulator crashed") as raised:
        pool.step(bad)
    assert "gym_walk.py" in raised.value.__notes__[0]
    for again in (pool.reset, lambda: pool.step(good), pool.snapshot):
        with pytest.raises(UsageError, match="raised an error, or died.*restore"):
            again()
    assert_equal(pool.restore(snapshot), step)
    bad[2, 0] = -1
    with pytest.raises(RuntimeError, match="the worker of rows 2 to 2 ended with exit code 7"):
        pool.step(bad)
    assert_equal(pool.restore(snapshot), step)


def test_what_is_refused():
    for workers in (0, 65, 1.5):
        with pytest.raises(UsageError, match=f"workers={workers}"):
            envs.make(NAME, 3, 1, workers=workers)
    with pytest.raises(UsageError, match="workers=2 is not allowed of py:tests.jax_walk:"):
        envs.make("py:tests.jax_walk:make_env", 3, 1, workers=2)
    with pytest.raises(UsageError, match="size=4 is not allowed") as raised:
        envs.make(NAME, 2, 1, size=4, workers=2)
    assert "\n" not in str(raised.value)


def test_workers_end_where_the_process_that_made_them_is_gone(pool):
    workers = list(pool._workers)
    for _, connection in workers:
        connection.close()
    until = time.monotonic() + 30
    while any(process.poll() is None for process, _ in workers) and time.monotonic() < until:
        time.sleep(0.02)
    assert [process.poll() for process, _ in workers] == [0, 0]
