"""Scores of candidates, and what planners refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import SPEC, Point, at_origin, make_point_model
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.planners.search import score
from wmjax.types import ActionSpec, UsageError

MODEL = make_point_model(2)
PARAMS = np.float32(1)
KEY = jax.random.key(3)


def test_rewards_after_a_predicted_end_do_not_count():
    """The arrival that ends the episode still counts, by whatever probability the episode got there."""
    model = make_point_model(1, edge=1.5)
    fading = model._replace(discount=lambda params, state: jnp.full(state.position.shape[0], 0.5))
    actions = np.float32([[[1], [0]], [[1], [0]], [[1], [0]]])  # [H = 3, N = 2, A = 1]
    state = Point(np.zeros(1, np.float32), np.full(1, 4, np.float32))
    value = score(model, PARAMS, KEY, state, actions)
    np.testing.assert_allclose(value, [-9 - 4, -16 * 3])  # ends on arriving at 2; the other candidate stays at 0
    value = score(fading, PARAMS, KEY, state, actions)
    np.testing.assert_allclose(value, [-9 - 4 / 2 - 1 / 4, -16 * 1.75])
    value = score(model, PARAMS, KEY, state, actions[:1])
    np.testing.assert_allclose(value, [-9, -16])


@pytest.mark.parametrize(("make", "config"), [(make_cem, CEMConfig), (make_random_shooting, ShootingConfig)])
def test_a_horizon_that_the_model_does_not_take_is_refused(make, config):
    model, action = MODEL._replace(horizon=8), SPEC.action
    make(model, action, config(horizon=8))
    with pytest.raises(UsageError, match="planner horizon 12: .* 8 steps at once"):
        make(model, action, config(horizon=12))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: CEMConfig(candidates=10, elites=11), "elites 11"),
        (lambda: CEMConfig(elites=0), "elites 0"),
        (lambda: CEMConfig(horizon=0), "horizon 0"),
        (lambda: CEMConfig(iterations=0), "iterations 0"),
        (lambda: CEMConfig(candidates=0, elites=0), "candidates 0"),
        (lambda: ShootingConfig(horizon=0), "horizon 0"),
        (lambda: ShootingConfig(candidates=0), "candidates 0"),
        (lambda: CEMConfig(action="mode"), "action 'mode'"),
    ],
)
def test_refusals_name_the_setting(make, named):
    with pytest.raises(UsageError, match=named):
        make()


BOUNDS = ActionSpec(2, False, -1.0, 1.0)


@pytest.mark.parametrize(
    "planner",
    [
        make_cem(MODEL, BOUNDS, CEMConfig(2, 2, 8, 2)),
        make_cem(MODEL, BOUNDS, CEMConfig(2, 2, 8, 2, action="best")),
        make_random_shooting(MODEL, BOUNDS, ShootingConfig(2, 8)),
    ],
    ids=["cem", "cem_best", "shooting"],
)
def test_a_plan_without_a_value_has_no_action(planner):
    """Of the row whose model diverged alone: acting on would hide it, and environments refuse NaN."""
    plan = jax.jit(planner.plan)(PARAMS, KEY, at_origin([[0.5, 0.5], [np.nan, 0.5]]))
    assert np.isfinite(plan.action[0]).all() and np.isnan(plan.action[1]).all()
    assert np.isnan(plan.value[1]) and np.isfinite(plan.mean).all()
