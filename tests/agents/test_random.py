"""Random actions: uniform, held."""

import jax
import numpy as np
import pytest

from tests.fakes import DISCRETE_SPEC, SPEC, random_steps
from wmjax.agents.random import make_random_actor
from wmjax.types import ActionSpec

KEY = jax.random.key(0)
PARAMS = np.float32(1)


def arrivals(rows):
    """Step [E] of noise."""
    return jax.tree.map(lambda x: x[:, 0], random_steps(SPEC, rows, 1))


def test_random_actions_are_uniform_between_the_bounds():
    actor = make_random_actor(ActionSpec(2, False, -0.5, 2.0))
    step = arrivals(4000)
    _, action, _ = actor.act(PARAMS, KEY, actor.initial(PARAMS, 4000), step, True)
    action = np.asarray(action)
    assert action.shape == (4000, 2) and action.dtype == np.float32
    assert action.min() >= -0.5 and action.max() <= 2
    share = np.histogram(action, bins=10, range=(-0.5, 2))[0] / action.size
    np.testing.assert_allclose(share, np.full(10, 0.1), atol=0.015)
    assert abs(np.corrcoef(action.T)[0, 1]) < 0.06


def test_random_discrete_actions_are_uniform():
    actor = make_random_actor(DISCRETE_SPEC.action)
    _, action, _ = actor.act(PARAMS, KEY, actor.initial(PARAMS, 3000), arrivals(3000), False)
    assert action.shape == (3000,) and action.dtype == np.int32
    np.testing.assert_allclose(np.bincount(action) / 3000, np.full(3, 1 / 3), atol=0.04)


@pytest.mark.parametrize("spec", [DISCRETE_SPEC.action, ActionSpec(2, False, -0.5, 2.0)])
def test_random_actions_are_held(spec):
    actor = make_random_actor(spec, hold=3)
    carry, actions = actor.initial(PARAMS, 50), []
    for t in range(8):
        carry, action, _ = actor.act(PARAMS, jax.random.fold_in(KEY, t), carry, arrivals(50), True)
        actions.append(np.asarray(action))
    for t in range(1, 8):
        same = (actions[t] == actions[t - 1]).reshape(50, -1).all(1)
        assert same.all() if t % 3 else same.mean() < 0.6
