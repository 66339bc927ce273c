"""The true simulator as a world model: one host call for each iteration of a search, the plans of a numpy search."""

import jax
import numpy as np
import pytest

from wmjax import envs, imagine
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.models import simulator
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.stopwatch import Stopwatch

KEY = jax.random.key(3)
CONFIG = CEMConfig(horizon=3, iterations=3, candidates=16, elites=4)


@pytest.fixture(scope="module")
def reacher():
    """(environment of two rows with targets of their own, its first Step)."""
    env = envs.make("physics:reacher_easy", 2, 0, action_repeat=4, threads=2)
    return env, env.reset()


def state_of(model, obs):
    """The belief at an episode's first observation [B, S, 8]."""
    rows = len(obs)
    return model.observe(None, KEY, model.initial(None, rows), None, model.encode(None, obs), np.ones(rows, bool))[0]


def search_by_loop(env, obs, row, key, config, action="mean"):
    """Algorithm 2 in numpy for one row of `obs`, with the planner's own noise: (mean [H, A], action [A])."""
    size = env.spec.action.size
    row_key = jax.random.split(key, len(obs))[row]
    mean, std = np.zeros((config.horizon, size)), np.ones((config.horizon, size))
    for each in jax.random.split(row_key, config.iterations):
        noise = jax.random.normal(jax.random.split(each)[0], (config.horizon, config.candidates, size))
        candidates = np.float32(np.clip(mean[:, None] + std[:, None] * np.asarray(noise), -1, 1))
        _, rewards = env.advance(obs[[row] * config.candidates], candidates)
        best = np.argsort(-rewards.sum(axis=0), kind="stable")[: config.elites]
        mean, std = candidates[:, best].mean(axis=1), candidates[:, best].std(axis=1)
    return mean, candidates[0, best[0]] if action == "best" else mean[0]


@pytest.mark.parametrize("action", ["mean", "best"])
def test_cem_over_the_simulator_equals_numpy(action):
    env = envs.make("physics:cheetah_run", 2, 1, action_repeat=2)
    obs = env.reset().obs
    model = simulator.make_model(env.spec, env.advance)
    config = CEMConfig(3, 3, 16, 4, action)
    plan = jax.jit(make_cem(model, env.spec.action, config).plan)(None, KEY, state_of(model, obs))
    for row in range(2):
        mean, first = search_by_loop(env, obs, row, KEY, config, action)
        np.testing.assert_allclose(plan.mean[row], mean, atol=1e-6)
        np.testing.assert_allclose(plan.action[row], first, atol=1e-6)
    assert np.abs(plan.mean[:, 0] - plan.action).max() < 1e-6 or action == "best"


def test_rows_with_other_targets_plan_otherwise_each_as_alone():
    """Where the arm can turn to either target within the horizon."""
    env = envs.make("physics:reacher_easy", 1, 0, action_repeat=20)
    model, both = simulator.make_model(env.spec, env.advance), np.repeat(env.reset().obs, 2, axis=0)
    numbers = both.view(np.float64)[..., 0].copy()
    numbers[:, 1:3] = 0.0, 0.8  # shoulder and wrist
    bent = [0.12 * (np.cos(turn) + np.cos(turn + 0.8)) for turn in (0.5, -0.5)]
    tall = [0.12 * (np.sin(turn) + np.sin(turn + 0.8)) for turn in (0.5, -0.5)]
    numbers[:, -2:] = np.stack([bent, tall], axis=1)  # a target on either side of the finger
    obs = np.ascontiguousarray(numbers)[..., None].view(np.uint8)
    plan = jax.jit(make_cem(model, env.spec.action, CEMConfig(4, 4, 64, 8)).plan)(None, KEY, state_of(model, obs))
    assert plan.value.min() > 0  # rewards are found
    assert plan.mean[0, 0, 0] > 0.1 and plan.mean[1, 0, 0] < -0.1  # the shoulder turns to its own target
    for row in range(2):
        mean, _ = search_by_loop(env, obs, row, KEY, CEMConfig(4, 4, 64, 8))
        np.testing.assert_allclose(plan.mean[row], mean, atol=1e-6)


@pytest.mark.parametrize("make", [make_cem, make_random_shooting])
def test_the_simulator_is_called_once_for_each_iteration_and_row(reacher, make):
    env, first = reacher
    sizes = []

    def advance(states, actions):
        sizes.append(actions.shape[:2])
        return env.advance(states, actions)

    model = simulator.make_model(env.spec, advance)
    config = CONFIG if make is make_cem else ShootingConfig(3, 16)
    jax.block_until_ready(jax.jit(make(model, env.spec.action, config).plan)(None, KEY, state_of(model, first.obs)))
    assert sizes == [(3, 16)] * (2 * (3 if make is make_cem else 1))


def test_steps_one_by_one_and_a_whole_horizon_tell_the_same_rewards():
    env = envs.make("physics:cartpole_swingup", 3, 0, action_repeat=4)
    model, obs = simulator.make_model(env.spec, env.advance), env.reset().obs
    actions = np.float32(np.random.default_rng(0).uniform(-1, 1, (5, 3, 1)))
    states = jax.jit(lambda: imagine.open_loop(model, None, KEY, state_of(model, obs), actions))()
    at_once, goes_on = jax.jit(lambda: imagine.predict_rewards(model, None, KEY, state_of(model, obs), actions))()
    np.testing.assert_allclose(imagine.rewards(model, None, states), at_once, rtol=0, atol=1e-6)
    true = np.stack([env.step(action).reward for action in actions])
    np.testing.assert_allclose(at_once, true, rtol=0, atol=1e-6)
    assert (goes_on == 1).all() and model.features(None, jax.tree.map(lambda x: x[0], states)).shape == (3, 1)


def test_it_reads_its_state_beside_an_image():
    env = envs.make("physics:cheetah_run", 2, 0)
    model = simulator.make_model(env.spec._replace(obs=dict(image=None, state=env.spec.obs)), env.advance)
    obs = env.reset().obs
    np.testing.assert_array_equal(state_of(model, dict(image=np.zeros(2), state=obs)["state"]).simulator, obs)
    np.testing.assert_array_equal(model.encode(None, dict(image=None, state=obs)), obs)


def test_planning_with_it_balances_the_pole():
    """The planning agent, whole: half a second of balance, which random actions lose."""
    env = envs.make("physics:cartpole_swingup", 1, 0, action_repeat=8, episode_steps=240)
    model = simulator.make_model(env.spec, env.advance)
    planner = make_cem(model, env.spec.action, CEMConfig(horizon=12, iterations=3, candidates=64, elites=8))
    player = make_player(make_actor(model, planner, env.spec.action, MPCConfig()), 1, explore=False)
    steps, returns = play_episodes(env, player, np.zeros(1), KEY[None], Stopwatch())
    assert returns[0] > 30  # 8 rewards a decision at most; hanging earns nothing
    assert steps.reward[-1, 0] > 5
