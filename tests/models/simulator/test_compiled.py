"""An environment in pure JAX as a model of itself: the environment's own steps, and what follows an episode's end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import jax_walk
from wmjax import envs, imagine
from wmjax.models.simulator import compiled
from wmjax.ops import bernoulli
from wmjax.ops.actions import model_action
from wmjax.types import UsageError

KEY, ROWS, HORIZON = jax.random.key(4), 5, 12


@functools.cache
def made(name):
    """(JaxEnv, its model, its first Step, actions [H, B, A or none], what the model imagines of them [H, B])."""
    options = dict(maze="9x11", observe="image+state", episode_steps=7) if name.startswith("minipacman") else {}
    env = envs.make_jax(name, **options)
    model, spec = compiled.make_model(env), env.spec.action
    _, first = jax.jit(env.reset, static_argnums=1)(KEY, ROWS)
    if spec.discrete:
        actions = jax.random.randint(KEY, (HORIZON, ROWS), 0, spec.size)
    else:
        actions = jax.random.uniform(KEY, (HORIZON, ROWS, spec.size), minval=-1)
    belief = imagine.begin(model, None, KEY, first.obs, spec)
    states = jax.jit(functools.partial(imagine.open_loop, model))(None, KEY, belief, model_action(actions, spec))
    return env, model, first, actions, states


NAMES = ("minipacman:hunt", "py:tests.jax_walk:make_env")


@pytest.mark.parametrize("name", NAMES)
def test_imagined_steps_are_the_environments_own(name):
    env, model, first, actions, states = made(name)
    keys = jax.random.split(KEY, HORIZON)  # as `open_loop` does
    step = lambda state, inputs: env.step(inputs[0], state, inputs[1])
    _, steps = jax.jit(lambda *xs: jax.lax.scan(step, *xs))(first.obs["state"], (keys, actions))
    over = np.cumsum(steps.is_last, axis=0) - steps.is_last > 0  # since an earlier step
    assert 0 < over.sum() < over.size
    reward, discount = (np.array(head(model, None, states)) for head in (imagine.rewards, imagine.discounts))
    np.testing.assert_allclose(reward, np.where(over, 0, steps.reward), rtol=1e-6)
    np.testing.assert_array_equal(discount, np.where(over, 0, steps.discount))
    images = np.array(jax.vmap(functools.partial(model.features, None))(states))
    np.testing.assert_allclose(images[~over], steps.obs["image"][~over] / 255, rtol=1e-6)
    for time, row in np.argwhere(over):
        np.testing.assert_array_equal(images[time, row], images[time - 1, row], err_msg="the image stays")
    assert images.shape[2:] == model.feature_shape == env.spec.obs_shape


@pytest.mark.parametrize("name", NAMES)
def test_what_it_observes(name):
    """A belief is what was just observed, however it came to be; heads say that the episode goes on."""
    env, model, first, _, states = made(name)
    late, none = jax.tree.map(lambda x: x[-1], states), jnp.zeros((ROWS, env.spec.action.size))
    embed = model.encode(None, first.obs)
    for past in (late, model.initial(None, ROWS)):
        state, _ = model.observe(None, KEY, past, none, embed, jnp.zeros(ROWS, bool))
        np.testing.assert_allclose(model.features(None, state) * 255, first.obs["image"], rtol=1e-6)
        assert (model.discount(None, state) == 1).all() and not model.reward(None, state).any()
    begun = compiled.begin(None, jax.tree.map(lambda x: x[:, None], embed))
    jax.tree.map(np.testing.assert_array_equal, begun, state)
    pixels = bernoulli.mean(model.decode(None, state))
    assert abs(pixels * 255 - first.obs["image"]).max() < 0.51


def test_it_filters_whole_records():
    env, model, first, _, _ = made(NAMES[1])
    steps = jax.tree.map(lambda x: jnp.stack([x] * 3, axis=1), first)  # [B, T]
    _, states, _ = imagine.filter_steps(model, None, KEY, steps, env.spec.action)
    np.testing.assert_allclose(states.image, steps.obs["image"])


def test_an_environment_that_hides_its_state_is_refused():
    with pytest.raises(UsageError, match="observe='image\\+state'"):
        compiled.make_model(envs.make_jax("minipacman:hunt"))
