"""Environment models of images of any size: blocks of pixels, what is added at the edges and cut away again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import SPEC, normal, randomised
from tests.tiny_state_space import KEY, B, C, batch_of, configured
from wmjax.models import state_space
from wmjax.models.state_space.model import make_modules
from wmjax.ops import bernoulli


def spec_of(*shape):
    return SPEC._replace(obs=jax.ShapeDtypeStruct(shape, np.uint8))


@pytest.mark.parametrize(
    ("shape", "blocks", "grid"),
    [
        ((16, 24, 3), (4, 2), (2, 3)),
        ((84, 80, 1), (4, 2), (11, 10)),
        ((15, 19, 3), (2, 1), (8, 10)),
        ((15, 19, 3), (1, 1), (15, 19)),
        ((9, 11, 3), (1, 2), (5, 6)),
        ((9, 11, 3), (4, 4), (1, 1)),
    ],
)
def test_states_are_as_many_times_smaller_as_the_blocks_are_large(shape, blocks, grid):
    model, learner = state_space.make(configured(blocks=blocks, decoder_width=16, kind="rar"), spec_of(*shape))
    params = jax.eval_shape(learner.init, KEY).params
    assert jax.eval_shape(model.encode, params, jnp.zeros((B, *shape), jnp.uint8)).shape == (B, *grid, C)
    state = jax.eval_shape(lambda params: model.initial(params, B), params)
    assert state.state.shape == (B, *grid, C)
    assert jax.eval_shape(model.decode, params, state).shape == (B, *shape)
    assert jax.eval_shape(model.imagine, params, KEY, state, jnp.zeros((B, 2))) == state  # renders and embeds an image


def test_deviations_are_padded_with_zeros_below_and_at_the_right():
    """And what is drawn is cut. What losses and background know of such images: test_learner.py."""
    spec = spec_of(15, 19, 3)
    config = configured(blocks=(2, 2), contrast=3.0)
    model, learner = state_space.make(config, spec)
    params = randomised(jax.eval_shape(learner.init, KEY).params, 0.12)
    modules, obs = make_modules(config, spec), batch_of(1, spec).obs[:, 0]

    padded = np.zeros((B, 16, 20, 3), np.float32)
    padded[:, :15, :19] = 3 * (obs.astype(np.float32) / 255 - np.asarray(bernoulli.mean(params["background"])))
    expected = jax.jit(modules["encoder"].apply)(params["encoder"], padded)
    np.testing.assert_allclose(jax.jit(model.encode)(params, obs), expected, rtol=1e-4, atol=1e-5)

    state = jax.tree.map(lambda x: normal(*x.shape), model.initial(params, B))
    maps = np.concatenate([state.state, state.latent], axis=-1)
    whole = np.asarray(jax.jit(modules["decoder"].apply)(params["decoder"], maps))
    expected = whole[:, :15, :19] + params["background"]
    np.testing.assert_allclose(jax.jit(model.decode)(params, state), expected, rtol=1e-4, atol=1e-5)
