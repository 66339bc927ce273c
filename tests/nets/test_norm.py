"""Batch norm and the norm of a grid against plain numpy."""

import jax
import numpy as np

from tests.fakes import normal, randomised
from tests.nets_by_hand import layer_norm
from wmjax.nets.norm import BatchNorm, GridNorm

KEY = jax.random.key(0)


def test_batch_norm_with_its_own_and_with_given_statistics():
    x = 3 * normal(2, 3, 4, 5) + 1
    norm = BatchNorm()
    params = randomised(jax.eval_shape(norm.init, KEY, x))
    scale, bias = params["params"]["scale"], params["params"]["bias"]
    y, (mean, variance) = norm.apply(params, x)
    flat = x.reshape(-1, 5)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, flat.var(0), rtol=1e-5)
    np.testing.assert_allclose(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * scale + bias, rtol=1e-4, atol=1e-5)
    given = (normal(5), np.square(normal(5, seed=3)))
    y, used = norm.apply(params, x, given)
    np.testing.assert_allclose(y, (x - given[0]) / np.sqrt(given[1] + 1e-5) * scale + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(used[0], given[0])


def test_grid_norm_has_a_scale_for_every_position():
    x = normal(2, 3, 3, 4)
    params = randomised(jax.eval_shape(GridNorm().init, KEY, x))
    np.testing.assert_allclose(GridNorm().apply(params, x), layer_norm(params["params"], x), rtol=1e-4, atol=1e-5)
    assert params["params"]["LayerNorm_0"]["scale"].shape == (3, 3, 4)
