"""Playing: whole episodes, their returns alone, and steps that go on where the last ones ended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax import envs
from wmjax.agents.random import make_random_actor
from wmjax.run import processes, stop
from wmjax.run.collect import make_player, play_episodes, play_returns, play_steps
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Actor, Step

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
    _, first = play_returns(fresh(), player, PARAMS, KEYS, Stopwatch(), film=5, rows=slice(1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :1]), first, film)
    for row in range(4):
        end = np.flatnonzero(steps.is_last[:, row])[0]
        assert returns[row] == pytest.approx(steps.reward[: end + 1, row].sum())
    assert len({int(np.flatnonzero(steps.is_last[:, row])[0]) for row in range(4)}) > 1  # some end before others


def test_steps_go_on_over_calls_and_episodes(player):
    env, seen = fresh(), []
    step, carry = env.reset(), player.begin(PARAMS)
    for call in range(3):
        keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, call)
        steps, carry, extras = play_steps(env, player, PARAMS, keys, Stopwatch(), step=step, carry=carry, count=8)
        step = jax.tree.map(lambda x: x[-1], steps)
        seen.append(steps)
        assert extras == ()
    whole = Step(*(np.concatenate([getattr(steps, name) for steps in seen]) for name in FIELDS))
    assert whole.reward.shape == (24, 4)
    np.testing.assert_array_equal(whole.is_first[1:], whole.is_last[:-1])
    assert whole.is_first.sum() >= 8
    drawn = whole.prev_action[~whole.is_first]  # by a key of its own for every decision
    assert len(np.unique(drawn)) == drawn.size
    other = fresh()
    other.reset()
    for t, action in enumerate(whole.prev_action):  # where an episode begins the action does not count
        again = other.step(action)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name)[t], err_msg=name)


def make_counting_actor():
    """An Actor whose carry is the number of decisions of each episode, and its action that number in hundredths."""

    def act(params, key, carry, step, explore):
        carry = jnp.where(step.is_first, 0, carry) + 1
        return carry, carry[:, None] / 100, dict(decisions=carry, reward=step.reward)

    return Actor(lambda params, rows: jnp.zeros(rows, jnp.int32), act)


def test_an_actor_remembers_over_calls_and_its_extras_are_kept():
    """Two calls of 6 and 7 decisions are one of 13: the actor goes on where it was, not only the environments."""
    player = make_player(make_counting_actor(), 2, explore=True, keep=lambda extras: extras["decisions"])
    env, seen = fresh(), []
    step, carry = env.reset(), player.begin(PARAMS)
    for count in (6, 7):
        steps, carry, extras = play_steps(env, player, PARAMS, KEYS, Stopwatch(), step=step, carry=carry, count=count)
        step = jax.tree.map(lambda x: x[-1], steps)
        seen.append((steps, extras.reshape(count, 4)))
    steps, decisions = jax.tree.map(lambda *x: np.concatenate(x), *seen)
    expected, count = np.zeros((13, 4), int), np.ones(4, int)  # decisions of the episode, at every arrival's action
    for t, is_first in enumerate(steps.is_first):
        expected[t] = count
        count = np.where(is_first, 1, count + 1)
    np.testing.assert_array_equal(decisions, expected)
    assert decisions[6:].max() > 6 and steps.is_first.any()
    told = ~steps.is_first  # where an episode begins the action does not count
    np.testing.assert_allclose(steps.prev_action[told][:, 0], decisions[told] / 100, rtol=1e-6)
    np.testing.assert_array_equal(carry.reshape(4), expected[-1])
    assert player.act._cache_size() == 1


def test_times_are_counted(player):
    stopwatch = Stopwatch()
    env = fresh()
    play_steps(env, player, PARAMS, KEYS, stopwatch, step=env.reset(), carry=player.begin(PARAMS), count=3)
    assert set(stopwatch.flush()) == {"time/env", "time/act", "time/copy"}


@pytest.mark.parametrize("play", [play_episodes, play_returns, play_steps])
def test_a_signal_ends_playing_between_two_decisions(play, player, monkeypatch):
    env, taken = fresh(), []
    step = env.step
    monkeypatch.setattr(env, "step", lambda action: taken.append(action) or step(action))
    begun = dict(step=env.reset(), carry=player.begin(PARAMS), count=9)
    more = {play_returns: dict(film=5), play_steps: begun}.get(play, {})

    def check():
        if len(taken) == 3:
            raise stop.Stopped("SIGTERM")

    monkeypatch.setattr(processes, "check", check)
    with pytest.raises(stop.Stopped, match="SIGTERM"):
        play(env, player, PARAMS, KEYS, Stopwatch(), **more)
    assert len(taken) == 3
