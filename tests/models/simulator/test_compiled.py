"""An environment in pure JAX as a model of itself: the environment's own steps, and what follows an episode's end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax import envs, imagine
from wmjax.models.simulator import compiled
from wmjax.ops import bernoulli
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, unfold_like
from wmjax.types import UsageError

KEY, ROWS, HORIZON = jax.random.key(4), 5, 12


@functools.cache
def made(name):
    """(JaxEnv, its model, its first Step, the last imagined state, (Step, rewards, discounts, images) [H, B, ...])."""
    env = envs.make_jax(name)
    model, spec = compiled.make_model(env), env.spec.action

    @jax.jit
    def play(first, actions):
        """What the environment does and what the model imagines under the keys that `open_loop` makes."""
        keys, belief = jax.random.split(KEY, HORIZON), imagine.begin(model, None, KEY, first.obs, spec)
        step = lambda state, inputs: env.step(inputs[0], state, inputs[1])
        _, steps = jax.lax.scan(step, first.obs["state"], (keys, actions))
        states = imagine.open_loop(model, None, KEY, belief, model_action(actions, spec))
        images = unfold_like(model.features(None, fold(states)), states)
        heads = imagine.rewards(model, None, states), imagine.discounts(model, None, states)
        return jax.tree.map(lambda x: x[-1], states), (steps, *heads, images)

    _, first = jax.jit(env.reset, static_argnums=1)(KEY, ROWS)
    rng = np.random.default_rng(0)
    if spec.discrete:
        actions = rng.integers(0, spec.size, (HORIZON, ROWS), np.int32)
    else:
        actions = rng.uniform(-1, 1, (HORIZON, ROWS, spec.size)).astype(np.float32)
    return env, model, first, *jax.tree.map(np.array, play(first, actions))


NAMES = ("py:tests.jax_walk:make_env", "py:tests.jax_walk:make_discrete")


@pytest.mark.parametrize("name", NAMES)
def test_imagined_steps_are_the_environments_own(name):
    env, model, _, _, (steps, reward, discount, images) = made(name)
    over = np.cumsum(steps.is_last, axis=0) - steps.is_last > 0  # since an earlier step
    assert 0 < over.sum() < over.size
    np.testing.assert_allclose(reward, np.where(over, 0, steps.reward), rtol=1e-6)
    np.testing.assert_array_equal(discount, np.where(over, 0, steps.discount))
    np.testing.assert_allclose(images[~over], steps.obs["image"][~over] / 255, rtol=1e-6)
    for time, row in np.argwhere(over):
        np.testing.assert_array_equal(images[time, row], images[time - 1, row], err_msg="the image stays")
    assert images.shape[2:] == model.feature_shape == env.spec.obs_shape


def test_what_it_observes():
    """A belief is what was just observed, however it came to be; heads say that the episode goes on."""
    env, model, first, late, _ = made(NAMES[0])
    none, embed = jnp.zeros((ROWS, env.spec.action.size)), model.encode(None, first.obs)
    for past in (late, model.initial(None, ROWS)):
        state, _ = model.observe(None, KEY, past, none, embed, jnp.zeros(ROWS, bool))
        np.testing.assert_allclose(model.features(None, state) * 255, first.obs["image"], rtol=1e-6)
        assert (model.discount(None, state) == 1).all() and not model.reward(None, state).any()
    begun = compiled.begin(None, jax.tree.map(lambda x: x[:, None], embed))
    jax.tree.map(np.testing.assert_array_equal, begun, state)
    pixels = bernoulli.mean(model.decode(None, state))
    assert abs(pixels * 255 - first.obs["image"]).max() < 0.51


def test_it_filters_whole_records():
    env, model, first, *_ = made(NAMES[0])
    steps = jax.tree.map(lambda x: jnp.stack([x] * 3, axis=1), first)  # [B, T]
    _, states, _ = imagine.filter_steps(model, None, KEY, steps, env.spec.action)
    np.testing.assert_allclose(states.image, steps.obs["image"])


def test_minipacman_is_a_model_of_itself():
    env = envs.make_jax("minipacman:hunt", maze="9x11", observe="image+state")
    model, actions = compiled.make_model(env), jnp.zeros((HORIZON, ROWS, 5))
    states = jax.eval_shape(lambda: imagine.open_loop(model, None, KEY, model.initial(None, ROWS), actions))
    assert states.image.shape == (HORIZON, ROWS, 9, 11, 3) == (HORIZON, ROWS, *model.feature_shape)


def test_an_environment_that_hides_its_state_is_refused():
    with pytest.raises(UsageError, match="observe='image\\+state'"):
        compiled.make_model(envs.make_jax("minipacman:hunt"))
