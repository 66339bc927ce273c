"""Model-predictive control on a model whose beliefs are known, and playing episodes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import make_point_model
from wmjax import envs
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.agents.random import make_random_actor
from wmjax.planners import CEMConfig, make_cem
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import ActionSpec, Actor, Plan, Planner, Step, UsageError

KEY, OTHER_KEY = jax.random.key(0), jax.random.key(1)
PARAMS = np.float32(1)
WIDE = ActionSpec(2, False, -100.0, 100.0)
NARROW = ActionSpec(2, False, -0.5, 0.25)
MODEL = make_point_model(2)


def plan_position(params, key, state):
    """A planner that answers with the position it is given, so that an action shows what was believed."""
    position = state.position
    return Plan(position, position[:, None], jnp.ones_like(position)[:, None], position.sum(-1))


def arrivals(rows, first=(), light=0):
    """Step [E]: action 2 led here, images of one brightness; `first` holds the rows where an episode begins."""
    is_first = np.isin(np.arange(rows), first)
    return Step(
        prev_action=np.where(is_first[:, None], 0, np.float32([2, 2])).astype(np.float32),
        obs=np.full((rows, 2, 2, 1), light, np.uint8),
        reward=np.zeros(rows, np.float32),
        discount=np.ones(rows, np.float32),
        is_first=is_first,
        is_last=np.zeros(rows, bool),
    )


def acting(action_spec, noise=0.3, planner=None, model=MODEL):
    """(actor, jitted act) of the fake planner."""
    actor = make_actor(model, planner or Planner(plan_position), action_spec, MPCConfig(noise))
    return actor, jax.jit(actor.act)


def test_the_belief_takes_in_action_and_image_before_planning():
    actor, act = acting(WIDE)
    carry = actor.initial(PARAMS, 3)
    for expected, step in [(1, arrivals(3, (0, 1, 2), 255)), (3, arrivals(3)), (6, arrivals(3, (), 255))]:
        carry, action, plan = act(PARAMS, KEY, carry, step, False)
        np.testing.assert_array_equal(action, np.full((3, 2), expected))
        np.testing.assert_array_equal(plan.action, action)
        np.testing.assert_array_equal(carry.position, action)


def test_a_carry_of_other_rows_is_refused():
    """One row would be taken for each."""
    actor, _ = acting(WIDE)
    with pytest.raises(AssertionError, match="prefix"):
        actor.act(PARAMS, KEY, actor.initial(PARAMS, 1), arrivals(3), False)


def test_a_model_that_takes_rewards_is_told_them_before_planning():
    told = MODEL._replace(with_reward=lambda state, reward: state.replace(position=state.position + reward[:, None]))
    actor, act = acting(WIDE, model=told)
    step = arrivals(2, (0, 1)).replace(reward=np.float32([3, 5]))
    _, action, _ = act(PARAMS, KEY, actor.initial(PARAMS, 2), step, False)
    np.testing.assert_array_equal(action, [[3, 3], [5, 5]])


def test_is_first_resets_its_own_row_and_no_other():
    actor, act = acting(WIDE)
    carry, _, _ = act(PARAMS, KEY, actor.initial(PARAMS, 3), arrivals(3, (0, 1, 2), 255), False)
    carry, action, _ = act(PARAMS, KEY, carry, arrivals(3, (2,), 255), False)
    np.testing.assert_array_equal(action, [[4, 4], [4, 4], [1, 1]])
    np.testing.assert_array_equal(carry.position, action)


def test_noise_is_added_only_when_exploring():
    actor, act = acting(WIDE)
    carry, step = actor.initial(PARAMS, 2000), arrivals(2000, np.arange(2000), 255)
    _, greedy, _ = act(PARAMS, KEY, carry, step, False)
    _, greedy_again, _ = act(PARAMS, OTHER_KEY, carry, step, False)
    np.testing.assert_array_equal(greedy, np.ones((2000, 2)))
    np.testing.assert_array_equal(greedy_again, greedy)
    _, explored, plan = act(PARAMS, KEY, carry, step, True)
    _, again, _ = act(PARAMS, KEY, carry, step, True)
    _, other, _ = act(PARAMS, OTHER_KEY, carry, step, True)
    np.testing.assert_array_equal(explored, again)
    assert (explored != other).all()
    np.testing.assert_array_equal(plan.action, greedy)
    noise = np.asarray(explored - greedy)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 0.3) < 0.02
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1 and len(np.unique(noise[:, 0])) > 1900


@pytest.mark.parametrize("light", [0, 255])
def test_actions_are_clipped_after_the_noise(light):
    """Beliefs 0 and 1 with bounds -0.5 and 0.25: without noise the bound itself, with noise still inside."""
    actor, act = acting(NARROW)
    carry, step = actor.initial(PARAMS, 200), arrivals(200, np.arange(200), light)
    _, greedy, _ = act(PARAMS, KEY, carry, step, False)
    np.testing.assert_array_equal(greedy, np.full((200, 2), 0.25 if light else 0))
    _, explored, _ = act(PARAMS, KEY, carry, step, True)
    assert explored.min() >= -0.5 and explored.max() == 0.25
    if not light:
        assert explored.min() == -0.5 and len(np.unique(explored)) > 100


def test_planning_and_exploring_use_different_keys():
    spec = ActionSpec(2, False, -1.0, 1.0)
    planner = make_cem(MODEL, spec, CEMConfig(horizon=1, iterations=1, candidates=1, elites=1))
    actor, act = acting(spec._replace(low=-100.0, high=100.0), 1.0, planner)
    step = arrivals(5, np.arange(5))
    _, greedy, _ = act(PARAMS, KEY, actor.initial(PARAMS, 5), step, False)
    _, explored, _ = act(PARAMS, KEY, actor.initial(PARAMS, 5), step, True)
    assert (np.abs(np.asarray(explored - greedy)) != np.abs(np.asarray(greedy))).all() and (explored != greedy).all()


def test_negative_noise_is_refused():
    with pytest.raises(UsageError, match="exploration_noise -0.1"):
        MPCConfig(-0.1)
    MPCConfig(0.0)


def test_play_episodes_records_every_row_and_counts_the_first_episode():
    """Rows end at their own times in fake:terminating; what follows a row's end is recorded but not counted."""
    env = envs.make("fake:terminating", 4, 0, episode_steps=9)
    actor = make_random_actor(env.spec.action)

    def act(*args):
        carry, action, _ = actor.act(*args)
        return carry, jnp.stack([jnp.full(4, 0.9), action[:, 1]], -1), None

    rightwards = Actor(actor.initial, act)
    stopwatch = Stopwatch()
    player = make_player(rightwards, 4, explore=True)
    steps, returns = play_episodes(env, player, PARAMS[None], KEY[None], stopwatch)
    ends = [int(np.argmax(steps.is_last[:, row])) for row in range(4)]
    assert len(set(ends)) > 1 and max(ends) == len(steps.reward) - 1 and steps.is_last.any(0).all()
    assert steps.is_first[0].all() and steps.obs.dtype == np.uint8 and steps.obs.shape[:2] == steps.reward.shape
    for row, end in enumerate(ends):
        np.testing.assert_allclose(returns[row], steps.reward[: end + 1, row].sum(), rtol=1e-6)
        assert steps.is_first[end + 1 : end + 2, row].all()
    sideways = steps.prev_action[..., 1][~steps.is_first]
    assert len(np.unique(sideways)) == sideways.size  # every decision has a key of its own
    assert stopwatch.flush().keys() >= {"time/act", "time/env"}


def test_planning_by_the_true_model_solves_the_fake_environment():
    """The whole path from image to action: the position is read off the image, the point is brought to 0."""
    env = envs.make("fake:counter", 2, 0, action_size=1, episode_steps=8)
    size = env.spec.obs_shape[0]

    def encode(params, obs):
        column = (obs[..., 0] > 128).any(axis=2)  # [E, X]: which rows of the image the square covers
        side = column.sum(axis=1)
        first = jnp.argmax(column, axis=1)
        return (first / (size - side) * 8 - 4)[:, None].astype(jnp.float32)

    def observe(params, key, state, prev_action, embed, is_first):
        return state.replace(position=embed), None

    model = make_point_model(1)._replace(encode=encode, observe=observe)
    planner = make_cem(model, env.spec.action, CEMConfig(horizon=3, iterations=5, candidates=60, elites=6))
    actor = make_actor(model, planner, env.spec.action, MPCConfig())
    player = make_player(actor, 2, explore=False)
    steps, returns = play_episodes(env, player, PARAMS[None], KEY[None], Stopwatch())
    assert (steps.reward[4:] > 0.6).all() and player.act._cache_size() == 1
    env = envs.make("fake:counter", 2, 0, action_size=1, episode_steps=8)
    again, same = play_episodes(env, player, PARAMS[None], KEY[None], Stopwatch())
    np.testing.assert_array_equal(returns, same)
    jax.tree.map(np.testing.assert_array_equal, steps, again)
