"""Random shooting on a point that moves by its actions, against numpy."""

import jax
import numpy as np

from tests.fakes import at_origin, make_point_model, values_by_loop
from wmjax.planners import ShootingConfig, make_random_shooting
from wmjax.types import ActionSpec

HALF = ActionSpec(2, False, -0.5, 0.5)
MODEL = make_point_model(2)
PARAMS = np.float32(1)
KEY = jax.random.key(3)
TARGETS = np.float32([[0.9, -0.4], [-0.7, 0.6], [0.1, 0.2]])


def test_random_shooting_takes_the_best_candidate():
    planner = make_random_shooting(MODEL, HALF, ShootingConfig(horizon=3, candidates=50))
    plan = jax.jit(planner.plan)(PARAMS, KEY, at_origin(TARGETS))
    for b, key in enumerate(jax.random.split(KEY, 3)):
        candidates = np.clip(np.asarray(jax.random.normal(jax.random.split(key)[0], (3, 50, 2))), -0.5, 0.5)
        values = values_by_loop(candidates, TARGETS[b])
        best = values.argmax()
        np.testing.assert_array_equal(plan.mean[b], candidates[:, best])
        np.testing.assert_array_equal(plan.action[b], candidates[0, best])
        np.testing.assert_allclose(plan.value[b], values[best], rtol=1e-5)
    assert plan.std.shape == (3, 3, 2)
