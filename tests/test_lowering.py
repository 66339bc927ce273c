"""What no tiny run of a main compiles lowers for accelerators too: other models, planners, balls, games, measures.

What a run compiles: `exports` in tests/mains.py, one test of each main.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.planet.model_error import STARTS, make_model_error
from tests import exporting
from tests.fakes import DISCRETE_SPEC, SPEC, random_steps
from tests.tiny_models import MODELS, VARIANTS
from wmjax import backend, envs
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.envs import bouncing_ball
from wmjax.ops.axes import time_first
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting

OTHERS = ("ssm_discrete", "dssm_det", "rar")
SLOW = ("drnn", "vq_convlstm_vector", "vq_convlstm_autoregressive")


@pytest.fixture(autouse=True)
def accelerator():
    with backend.as_on("gpu"):
        yield


@pytest.mark.parametrize("name", [*OTHERS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_updates_lower(name):
    spec, _, learner = (MODELS | VARIANTS)[name]()
    state = jax.eval_shape(learner.init, jax.random.key(0))
    exporting.export(learner.update, state, jax.random.key(0), random_steps(spec, 2, 6))


@pytest.mark.parametrize(
    ("spec", "planner"),
    [
        (SPEC, lambda model, spec: make_random_shooting(model, spec, ShootingConfig(2, 4))),
        (DISCRETE_SPEC, lambda model, spec: make_cem(model, spec, CEMConfig(2, 2, 4, 2))),
    ],
)
def test_acting_lowers(spec, planner):
    _, model, learner = MODELS["rssm"]() if spec is SPEC else MODELS["ssm_discrete"]()
    params = jax.eval_shape(learner.init, jax.random.key(0)).params
    actor = make_actor(model, planner(model, spec.action), spec.action, MPCConfig())
    carry = jax.eval_shape(lambda params: actor.initial(params, 2), params)
    step = jax.tree.map(lambda x: x[:, 0], random_steps(spec, 2, 1))
    exporting.export(lambda *args: actor.act(*args, True), params, jax.random.key(0), carry, step)


def test_balls_lower():
    exporting.export(lambda key: bouncing_ball.sequences(key, "diffusing", 2, 5, 16), jax.random.key(0))


def test_minipacman_lowers():
    env = envs.make_jax("minipacman:avoid", maze="9x11", observe="image+state")
    state, step = jax.eval_shape(lambda key: env.reset(key, 2), jax.random.key(0))
    exporting.export(env.step, jax.random.key(0), state, step.prev_action)


def test_measuring_the_model_while_planning_lowers(monkeypatch):
    _, model, learner = MODELS["rssm"]()
    jitted = []
    with monkeypatch.context() as patch:
        patch.setattr(jax, "jit", jitted.append)
        make_model_error(model, SPEC.action, None, horizon=3, candidates=4, elites=2)
    params = jax.eval_shape(learner.init, jax.random.key(0)).params
    steps = jax.tree.map(time_first, random_steps(SPEC, 1, 12))  # [T, 1]
    starts = np.arange(STARTS, dtype=np.int32)
    sequences = np.zeros((STARTS, 3, 4, SPEC.action.size), np.float32)
    exporting.export(jitted[0], params, jax.random.key(0), steps, starts, sequences)


def test_what_calls_the_host_is_for_the_cpu_alone():
    """models/simulator asks MuJoCo by such calls, which no exported program can hold."""

    def ask(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((2,), np.float32), x)

    with pytest.raises(NotImplementedError, match="callback"):
        exporting.export(ask, np.zeros(2, np.float32))


def test_an_operation_without_a_form_for_the_platform_is_found():
    with pytest.raises(NotImplementedError, match="tpu"):
        exporting.export(jnp.linalg.eig, np.zeros((2, 2), np.float32))
