"""Planning discrete actions: a point whose best sequence is found by trying all, and against numpy."""

import itertools

import jax
import numpy as np
import pytest

from tests.fakes import at_origin, make_point_model, values_by_loop
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.types import ActionSpec, Step

SPEC = ActionSpec(3, True, 0, 2)  # one-hot rows: each action moves the point along its own axis
MODEL = make_point_model(3)
PARAMS = np.float32(1)
KEY = jax.random.key(5)
TARGETS = np.float32([[3, 1, 0], [0, 0, 4], [1, 2.4, 1]])
SEQUENCES = np.float32([np.eye(3)[list(each)] for each in itertools.product(range(3), repeat=4)]).swapaxes(0, 1)


def test_cem_finds_the_best_of_all_sequences():
    planner = make_cem(MODEL, SPEC, CEMConfig(horizon=4, iterations=10, candidates=200, elites=20))
    plan = jax.jit(planner.plan)(PARAMS, KEY, at_origin(TARGETS))
    assert plan.action.dtype == np.int32 and plan.action.shape == (3,)
    np.testing.assert_allclose(plan.mean.sum(-1), 1, atol=1e-5)
    for row, target in enumerate(TARGETS):
        values = values_by_loop(SEQUENCES, target)
        found = values_by_loop(np.eye(3)[np.asarray(plan.mean[row]).argmax(-1)][:, None], target)[0]
        np.testing.assert_allclose(found, values.max(), rtol=1e-5)
        assert plan.action[row] == np.asarray(plan.mean[row, 0]).argmax()


@pytest.mark.parametrize("action", ["mean", "best"])
def test_cem_equals_numpy(action):
    config = CEMConfig(horizon=3, iterations=3, candidates=30, elites=5, action=action)
    plan = jax.jit(make_cem(MODEL, SPEC, config).plan)(PARAMS, KEY, at_origin(TARGETS))
    for row, row_key in enumerate(jax.random.split(KEY, 3)):
        probability = np.full((3, 3), 1 / 3)
        for key in jax.random.split(row_key, 3):
            logits = np.log(probability)[:, None]
            chosen = jax.random.categorical(jax.random.split(key)[0], np.float32(logits), shape=(3, 30))
            candidates = np.eye(3)[np.asarray(chosen)]
            values = values_by_loop(candidates, TARGETS[row])
            best = np.argsort(-values, kind="stable")[:5]
            probability = (candidates[:, best].sum(1) + 1 / 3) / 6
        np.testing.assert_allclose(plan.mean[row], probability, atol=1e-5)
        np.testing.assert_allclose(plan.std[row], np.sqrt(probability * (1 - probability)), atol=1e-5)
        first = candidates[0, best[0]] if action == "best" else probability[0]
        assert plan.action[row] == first.argmax()


def test_random_shooting_takes_the_best_candidate():
    planner = make_random_shooting(MODEL, SPEC, ShootingConfig(horizon=4, candidates=2000))
    plan = jax.jit(planner.plan)(PARAMS, KEY, at_origin(TARGETS))
    for row, target in enumerate(TARGETS):
        np.testing.assert_allclose(plan.value[row], values_by_loop(SEQUENCES, target).max())
        assert plan.action[row] == np.asarray(plan.mean[row, 0]).argmax()


def test_exploring_takes_another_action_with_its_probability():
    rows = 4000
    planner = make_cem(MODEL, SPEC, CEMConfig(horizon=1, iterations=1, candidates=8, elites=1))
    actor = make_actor(MODEL, planner, SPEC, MPCConfig(exploration_noise=0.3))
    step = Step(
        prev_action=np.zeros(rows, np.int32),
        obs=np.zeros((rows, 2, 2, 1), np.uint8),
        reward=np.zeros(rows, np.float32),
        discount=np.ones(rows, np.float32),
        is_first=np.ones(rows, bool),
        is_last=np.zeros(rows, bool),
    )
    carry = at_origin(np.tile(np.float32([0, 5, 0]), (rows, 1)))
    act = jax.jit(actor.act)
    _, greedy, plan = act(PARAMS, KEY, carry, step, False)
    np.testing.assert_array_equal(greedy, plan.action)
    assert (greedy == 1).mean() > 0.9 and greedy.dtype == np.int32
    _, explored, plan = act(PARAMS, KEY, carry, step, True)
    assert abs((explored != plan.action).mean() - 0.3 * 2 / 3) < 0.03
    assert set(np.asarray(explored).tolist()) == {0, 1, 2}
