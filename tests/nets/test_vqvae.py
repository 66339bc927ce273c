"""Encoder and decoder of grids: statistics, sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.nets.vqvae import GridDecoder, GridEncoder

KEY = jax.random.key(0)


def test_the_encoder_replaces_batch_statistics_one_by_one():
    """With the statistics it returned the result is the same, with others in any place it is not."""
    x = np.random.default_rng(0).uniform(size=(3, 16, 8, 1)).astype(np.float32)
    encoder = GridEncoder((4, 8), 5)
    params = jax.jit(encoder.init)(KEY, x)
    y, statistics = jax.jit(encoder.apply)(params, x)
    assert y.shape == (3, 4, 2, 5) and len(statistics) == 7
    np.testing.assert_allclose(jax.jit(encoder.apply)(params, x, statistics)[0], y, rtol=1e-4, atol=1e-4)
    for i in range(7):
        other = list(statistics)
        other[i] = (statistics[i][0] + 1, statistics[i][1])
        assert (jax.jit(encoder.apply)(params, x, tuple(other))[0] != y).any()


def test_encoder_and_decoder_sizes():
    assert jax.eval_shape(
        lambda x: GridEncoder((4, 4, 4), 7).init_with_output(KEY, x)[0][0], jnp.zeros((2, 32, 64, 4))
    ).shape == (2, 4, 8, 7)
    assert jax.eval_shape(
        lambda x: GridDecoder((4, 5, 6), 2).init_with_output(KEY, x)[0], jnp.zeros((2, 4, 8, 7))
    ).shape == (2, 32, 64, 2)
