"""Playing: whole episodes, their returns alone, and steps that go on where the last ones ended."""

import jax
import numpy as np
import pytest

from wmjax import envs
from wmjax.agents.random import make_random_actor
from wmjax.run import processes, stop
from wmjax.run.collect import make_player, play_episodes, play_returns, play_steps
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Step

PARAMS = np.zeros(2)  # of nothing: the actor is random
KEYS = jax.random.split(jax.random.key(0), 2)
FIELDS = tuple(Step.__dataclass_fields__)


@pytest.fixture(scope="module")
def player():
    """Two members of two rows each, acting at random."""
    return make_player(make_random_actor(fresh().spec.action), 2, explore=True)


def fresh(**options):
    return envs.make("fake:terminating", 4, 5, **dict(episode_steps=9, action_size=1) | options)


def test_returns_are_those_of_whole_episodes(player):
    steps, returns = play_episodes(fresh(), player, PARAMS, KEYS, Stopwatch())
    alone, film = play_returns(fresh(), player, PARAMS, KEYS, Stopwatch(), film=5)
    np.testing.assert_array_equal(alone, returns)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:5]), film, steps)
    for row in range(4):
        end = np.flatnonzero(steps.is_last[:, row])[0]
        assert returns[row] == pytest.approx(steps.reward[: end + 1, row].sum())
    assert len({int(np.flatnonzero(steps.is_last[:, row])[0]) for row in range(4)}) > 1  # some end before others


def test_steps_go_on_over_calls_and_episodes(player):
    env, step, seen = fresh(), None, []
    for call in range(3):
        step = env.reset() if step is None else jax.tree.map(lambda x: x[-1], seen[-1])
        keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, call)
        seen.append(play_steps(env, player, PARAMS, keys, Stopwatch(), step=step, count=8))
    whole = Step(*(np.concatenate([getattr(steps, name) for steps in seen]) for name in FIELDS))
    assert whole.reward.shape == (24, 4)
    np.testing.assert_array_equal(whole.is_first[1:], whole.is_last[:-1])
    assert whole.is_first.sum() >= 8
    other = fresh()
    other.reset()
    for t, action in enumerate(whole.prev_action):  # where an episode begins the action does not count
        again = other.step(action)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name)[t], err_msg=name)


def test_times_are_counted(player):
    stopwatch = Stopwatch()
    env = fresh()
    play_steps(env, player, PARAMS, KEYS, stopwatch, step=env.reset(), count=3)
    assert set(stopwatch.flush()) == {"time/env", "time/act", "time/copy"}


@pytest.mark.parametrize("play", [play_episodes, play_returns, play_steps])
def test_a_signal_ends_playing_between_two_decisions(play, player, monkeypatch):
    env, taken = fresh(), []
    step = env.step
    monkeypatch.setattr(env, "step", lambda action: taken.append(action) or step(action))
    more = {play_returns: dict(film=5), play_steps: dict(step=env.reset(), count=9)}.get(play, {})

    def check():
        if len(taken) == 3:
            raise stop.Stopped("SIGTERM")

    monkeypatch.setattr(processes, "check", check)
    with pytest.raises(stop.Stopped, match="SIGTERM"):
        play(env, player, PARAMS, KEYS, Stopwatch(), **more)
    assert len(taken) == 3
