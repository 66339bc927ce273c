"""The cross-entropy method on a point that moves by its actions, whose best sequence is known, and against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import at_origin, make_point_model, values_by_loop
from wmjax import backend
from wmjax.planners import CEMConfig, make_cem, search
from wmjax.types import ActionSpec

BOUNDS = ActionSpec(2, False, -1.0, 1.0)
HALF = ActionSpec(2, False, -0.5, 0.5)
MODEL = make_point_model(2)
PARAMS = np.float32(1)
KEY = jax.random.key(3)
TARGETS = np.float32([[0.9, -0.4], [-0.7, 0.6], [0.1, 0.2]])


@pytest.fixture(scope="module")
def cem():
    planner = make_cem(MODEL, BOUNDS, CEMConfig(horizon=3, iterations=12, candidates=400, elites=40))
    return jax.jit(planner.plan)


@pytest.mark.parametrize("rows", [1, 3])
def test_cem_finds_the_sequence_of_every_row(cem, rows):
    """Rows have different targets: candidates scored in another row's place would end elsewhere."""
    plan = cem(PARAMS, KEY, at_origin(TARGETS[:rows]))
    best = np.zeros((rows, 3, 2), np.float32)
    best[:, 0] = TARGETS[:rows]
    np.testing.assert_allclose(plan.mean, best, atol=0.03)
    np.testing.assert_array_equal(plan.action, plan.mean[:, 0])
    np.testing.assert_allclose(plan.value, np.zeros(rows), atol=0.01)
    assert (np.asarray(plan.value) <= 0).all()
    assert (np.asarray(plan.std) < 0.05).all()


def test_cem_stays_in_bounds_and_uses_them_fully():
    planner = make_cem(MODEL, HALF, CEMConfig(horizon=3, iterations=12, candidates=400, elites=40))
    plan = jax.jit(planner.plan)(PARAMS, KEY, at_origin([[1.2, 0], [0, -9]]))
    assert np.abs(plan.mean).max() <= 0.5
    np.testing.assert_allclose(plan.mean[0, :, 0], [0.5, 0.5, 0.2], atol=0.05)
    np.testing.assert_allclose(plan.mean[1, :, 1], [-0.5, -0.5, -0.5], atol=0.01)


def test_rows_are_drawn_apart_but_plan_alike(cem):
    """Three rows with one target: different samples, and the same plan as one row alone."""
    plan = cem(PARAMS, KEY, at_origin(TARGETS[:1].repeat(3, axis=0)))
    alone = cem(PARAMS, jax.random.key(9), at_origin(TARGETS[:1]))
    np.testing.assert_allclose(plan.mean, np.repeat(alone.mean, 3, axis=0), atol=0.05)
    assert (plan.mean[0] != plan.mean[1]).any() and (plan.mean[1] != plan.mean[2]).any()


def test_the_other_rows_do_not_matter(cem):
    moved = TARGETS.copy()
    moved[2] = [5, 5]
    one, other = cem(PARAMS, KEY, at_origin(TARGETS)), cem(PARAMS, KEY, at_origin(moved))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a[:2], b[:2])
        assert (a[2] != b[2]).any()


@pytest.mark.parametrize("bytes_missing", [0, 1])
def test_rows_side_by_side_and_in_turn_are_the_same(bytes_missing, monkeypatch):
    """Accelerators plan all rows at once; a single CPU device one row after the other, unless all states are small."""
    config = CEMConfig(horizon=2, iterations=4, candidates=20, elites=4)
    states = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(at_origin(TARGETS))) * config.candidates
    monkeypatch.setattr(search, "TOGETHER", states - bytes_missing)
    plans = []
    for platform in ("cpu", "gpu"):
        function = make_cem(MODEL, BOUNDS, config).plan
        with backend.as_on(platform):
            assert bool(scans_over_rows(function)) == (platform == "cpu" and bytes_missing > 0)
            plans.append(jax.jit(function)(PARAMS, KEY, at_origin(TARGETS)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *plans)


def scans_over_rows(plan):
    """The scans over 3 rows among the outermost equations of a plan for them."""
    jaxpr = jax.make_jaxpr(plan)(PARAMS, KEY, at_origin(TARGETS)).jaxpr
    return [eqn for eqn in jaxpr.eqns if eqn.params.get("length") == 3 and eqn.primitive.name == "scan"]


def test_planning_compiles_once_and_depends_on_the_key_alone():
    plan = jax.jit(make_cem(MODEL, BOUNDS, CEMConfig(horizon=2, iterations=2, candidates=8, elites=2)).plan)
    one = plan(PARAMS, KEY, at_origin(TARGETS))
    again = plan(PARAMS, KEY, at_origin(TARGETS))
    other = plan(PARAMS, jax.random.key(4), at_origin(TARGETS))
    plan(PARAMS, KEY, at_origin(-TARGETS))
    assert plan._cache_size() == 1
    np.testing.assert_array_equal(one.mean, again.mean)
    assert (one.mean != other.mean).all()


@pytest.mark.parametrize(
    "config",
    [
        CEMConfig(horizon=2, iterations=1, candidates=5, elites=5),
        CEMConfig(horizon=3, iterations=3, candidates=20, elites=4, action="best"),
        CEMConfig(horizon=1, iterations=2, candidates=6, elites=1),
    ],
    ids=["all_elites", "three_iterations_best", "one_elite"],
)
def test_cem_equals_numpy(config):
    """The whole of Algorithm 2 on the planner's own noise, with the biased standard deviation."""
    plan = jax.jit(make_cem(MODEL, HALF, config).plan)(PARAMS, KEY, at_origin(TARGETS))
    for b, row_key in enumerate(jax.random.split(KEY, 3)):
        mean, std = np.zeros((config.horizon, 2)), np.ones((config.horizon, 2))
        for key in jax.random.split(row_key, config.iterations):
            noise = np.asarray(jax.random.normal(jax.random.split(key)[0], (config.horizon, config.candidates, 2)))
            candidates = np.clip(mean[:, None] + std[:, None] * noise, -0.5, 0.5)
            values = values_by_loop(candidates, TARGETS[b])
            elites = np.argsort(-values)[: config.elites]  # [K]
            chosen = candidates[:, elites]  # [H, K, A]
            mean = chosen.sum(1) / config.elites
            std = np.sqrt(np.square(chosen - mean[:, None]).sum(1) / config.elites)
        np.testing.assert_allclose(plan.mean[b], mean, atol=1e-5)
        np.testing.assert_allclose(plan.std[b], std, atol=1e-5)
        first = chosen[0, 0] if config.action == "best" else mean[0]
        np.testing.assert_allclose(plan.action[b], first, atol=1e-5)
        np.testing.assert_allclose(plan.value[b], values[elites].mean(), rtol=1e-4, atol=1e-5)


def test_deviations_shrink_with_the_iterations():
    stds = [
        jax.jit(make_cem(MODEL, BOUNDS, CEMConfig(3, iterations, 100, 10)).plan)(PARAMS, KEY, at_origin(TARGETS)).std
        for iterations in (1, 6)
    ]
    assert stds[0].mean() < 0.8 and stds[1].mean() < 0.3 * stds[0].mean()


def test_planning_avoids_a_predicted_end():
    """With a reward of 1 a step nothing matters but to go on, and that needs a first move below -0.5."""
    model = make_point_model(1, edge=-0.5)._replace(reward=lambda params, state: jnp.ones(state.position.shape[0]))
    planner = make_cem(model, ActionSpec(1, False, -1.0, 1.0), CEMConfig(4, 8, 200, 20))
    plan = jax.jit(planner.plan)(PARAMS, KEY, at_origin([[0]]))
    assert (np.cumsum(plan.mean[0, :3, 0]) <= -0.5).all()
    np.testing.assert_allclose(plan.value, [4])
