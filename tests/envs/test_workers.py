"""Rows in worker processes: the steps and snapshots of one process, and what becomes of failures."""

import re
import time

import jax
import numpy as np
import pytest

from tests.mains import ROOT
from tests.steps import assert_equal
from wmjax import envs
from wmjax.envs import workers
from wmjax.types import UsageError

NAME = "py:tests.gym_walk:FragileWalk"
RAISES, DIES, TIRES, HANGS, NOT_A_NUMBER = (1, 0), (-1, 0), (0.95, 0), (0, 1), (0, -1)  # actions of it
FAR = (0.8, 0)  # so that episodes end in different decisions
SECONDS = 4  # a loaded machine may take long for a decision of nothing


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def begun():
    """(three rows, of which the first worker has two; a snapshot of their first episodes)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = envs.make(NAME, 3, 1, size=8, workers=2, seconds=SECONDS, failures=4)
    with pytest.raises(UsageError, match="before reset"):
        made.step(np.zeros((3, 2)))
    made.reset()
    yield made, made.snapshot()
    made.close()


@pytest.fixture
def pool(begun):
    """The rows, of which none has failed."""
    made, snapshot = begun
    made.restore(snapshot)
    return made


def assert_same_snapshot(one, other):
    """Of the actions those of present episodes alone."""
    assert one.keys() == other.keys()
    one, other = (
        each | dict(actions=np.where(played(each["decisions"], len(each["actions"])), each["actions"], 0))
        for each in (one, other)
    )
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def played(decisions, longest):
    """bool [longest, E, 1]: which rows take so many decisions, the newest last."""
    return (np.arange(longest, 0, -1)[:, None] <= decisions)[..., None]


def test_steps_and_snapshots_are_those_of_one_process(pool):
    alone = envs.make(NAME, 3, 1, size=8)
    assert pool.spec == alone.spec
    alone.reset()
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


def actions_of(row=0, action=FAR):
    """Actions of three rows: all go far, but for one of them."""
    return np.where(np.arange(3)[:, None] == row, action, FAR)


def rows_of(step, rows):
    return jax.tree.map(lambda x: x[rows], step)


@pytest.mark.parametrize(
    ("row", "action", "told"),
    [
        (2, RAISES, "rows 2 to 2 failed, RuntimeError: the simulator crashed; .* 3 more failures are allowed"),
        (2, HANGS, f"RuntimeError: the worker of rows 2 to 2 gave no answer within {SECONDS} seconds"),
        (1, DIES, "rows 0 to 1 failed, RuntimeError: the worker of rows 0 to 1 ended with exit code 7"),
    ],
)
def test_a_failure_cuts_the_episodes_of_its_worker_alone(pool, capsys, row, action, told):
    """Row 0 begins an episode in the decision in which row 1 ends the process of both."""
    alone = envs.make(NAME, 3, 1, size=8)
    before = pool.step(actions_of())
    while before.is_last[row] or not before.is_last[0]:
        before = pool.step(actions_of())
    alone.restore(pool.snapshot())
    started = [process for process, _ in pool._workers]
    failed, undisturbed = pool.step(actions_of(row, action)), alone.step(actions_of())
    warning = capsys.readouterr().err
    assert re.search(told, warning) and warning.count("\n") == 1
    assert [process.poll() is None for process in started] == [row == 2, row != 2]
    others = [0, 1] if row == 2 else [2]
    assert_equal(rows_of(failed, others), rows_of(undisturbed, others))
    cut = rows_of(failed, [row])
    np.testing.assert_array_equal(cut.obs, before.obs[[row]])
    np.testing.assert_array_equal(cut.prev_action, [action])
    assert (cut.reward, cut.discount, cut.is_first, cut.is_last) == (0, 1, False, True)
    assert failed.is_first[0] and not failed.is_last[0]
    snapshot = pool.snapshot()
    assert snapshot["failures"].sum() == 1
    assert_equal(alone.restore(snapshot), failed)
    assert_same_snapshot(alone.snapshot(), snapshot)
    assert_equal(pool.restore(snapshot), failed)
    for decision in range(6):
        step = pool.step(actions_of())
        assert_equal(alone.step(actions_of()), step)
        assert decision or (step.is_first[row] and (step.obs[row] != before.obs[row]).any())
    assert not capsys.readouterr().err


def test_a_row_that_does_not_begin_an_episode_begins_the_one_after_it(pool, capsys):
    alone = envs.make(NAME, 3, 1, size=8)
    alone.reset()
    assert_equal(pool.step(actions_of(2, TIRES)), alone.step(actions_of(2, TIRES)))
    episodes = pool.snapshot()["episodes"]
    alone.restore(alone.snapshot() | dict(episodes=episodes + [0, 0, 1], decisions=np.zeros(3, int)))
    step = pool.reset()
    assert "the simulator does not begin" in capsys.readouterr().err
    assert step.is_first.all()
    np.testing.assert_array_equal(pool.snapshot()["episodes"], episodes + [1, 1, 2])
    assert_equal(step, alone.reset())


def test_the_last_failure_is_raised_and_restoring_goes_on(pool, capsys, monkeypatch):
    """One is left, and the worker that takes the failed one's place does not answer."""
    step, snapshot = pool.step(actions_of()), pool.snapshot()
    pool.restore(snapshot | dict(failures=np.array([1, 1, 1])))
    monkeypatch.setattr(workers, "SERVE", "import time; time.sleep(600)")
    monkeypatch.setattr(workers, "MAKE_SECONDS", 0.01)
    monkeypatch.setattr(workers, "LAST_SECONDS", 0.01)
    with pytest.raises(RuntimeError, match="the worker of rows 0 to 0 gave no answer within 0.01 seconds"):
        envs.make(NAME, 1, 1, seconds=1)
    with pytest.raises(RuntimeError, match="the worker of rows 2 to 2 gave no answer within 0.01 seconds"):
        pool.step(actions_of(2, NOT_A_NUMBER))
    warning = capsys.readouterr().err
    assert "NonFiniteError: reward of row 0 is not finite" in warning and "0 more failures are allowed" in warning
    for again in (pool.reset, lambda: pool.step(actions_of()), pool.snapshot):
        with pytest.raises(UsageError, match="raised an error, or died.*restore"):
            again()
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    failing = snapshot | dict(actions=actions_of(2, RAISES)[None].astype(np.float32))
    restored = pool.restore(failing)
    assert "3 more failures are allowed" in capsys.readouterr().err
    assert_equal(rows_of(restored, [0, 1]), rows_of(step, [0, 1]))
    np.testing.assert_array_equal(restored.obs[2], step.obs[2])
    assert restored.is_last[2] and not restored.is_first[2] and restored.reward[2] == 0
    assert pool.step(actions_of()).is_first.tolist() == [False, False, True]
    monkeypatch.setattr(pool, "_start", lambda: setattr(pool, "_whole", True))
    older = {name: value for name, value in snapshot.items() if name != "seen"}
    for error, refused in ((RuntimeError("crashed"), older), (UsageError("it is of another environment"), snapshot)):
        monkeypatch.setattr(pool, "_answers", lambda *args, error=error: [(error, None)] * 2)
        with pytest.raises(type(error), match=str(error)):
            pool.restore(refused)


def test_what_is_refused():
    for number in (0, 65, 1.5):
        with pytest.raises(UsageError, match=f"workers={number}"):
            envs.make(NAME, 3, 1, workers=number)
    with pytest.raises(UsageError, match="workers=2 is not allowed of py:tests.jax_walk:"):
        envs.make("py:tests.jax_walk:make_env", 3, 1, workers=2)
    for option in (dict(seconds=-1), dict(seconds="1"), dict(seconds=np.nan), dict(failures=-1), dict(failures=1.0)):
        (name, value), *_ = option.items()
        with pytest.raises(UsageError, match=f"{name}={value!r} is not allowed: expected"):
            envs.make(NAME, 3, 1, **option)
    with pytest.raises(UsageError, match="failures=1 is not allowed of py:tests.jax_walk:"):
        envs.make("py:tests.jax_walk:make_env", 3, 1, failures=1)
    with pytest.raises(UsageError, match="size=4 is not allowed") as raised:
        envs.make(NAME, 1, 1, size=4, failures=1)
    assert "in a worker" in raised.value.__notes__[0]
    assert "\n" not in str(raised.value)


def test_workers_end_where_the_process_that_made_them_is_gone(begun):
    started = list(begun[0]._workers)
    for _, connection in started:
        connection.close()
    until = time.monotonic() + 30
    while any(process.poll() is None for process, _ in started) and time.monotonic() < until:
        time.sleep(0.02)
    assert [process.poll() for process, _ in started] == [0, 0]
