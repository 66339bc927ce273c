"""Gaussians against integrals, samples, numpy and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops import gaussian


def gaussians(seed=0, shape=(5, 3)):
    """mean1, std1, mean2, std2 in numpy float32."""
    rng = np.random.default_rng(seed)
    draw = [rng.normal(size=shape), rng.uniform(0.2, 2, shape), rng.normal(size=shape), rng.uniform(0.2, 2, shape)]
    return [x.astype(np.float32) for x in draw]


def log_density(x, mean, std):
    return -0.5 * np.log(2 * np.pi) - np.log(std) - (x - mean) ** 2 / (2 * std**2)


def test_kl_equals_the_integral():
    mean1, std1, mean2, std2 = (x.astype(np.float64) for x in gaussians())
    grid = np.linspace(-1, 1, 20001) * 20  # integrates each dimension by itself
    p = log_density(grid, mean1[..., None], std1[..., None])
    q = log_density(grid, mean2[..., None], std2[..., None])
    integral = (np.exp(p) * (p - q)).sum(-1) * (grid[1] - grid[0])
    np.testing.assert_allclose(gaussian.kl_diagonal(*gaussians()), integral.sum(-1), rtol=1e-5)


def test_kl_equals_the_mean_log_ratio_of_samples():
    mean1, std1, mean2, std2 = gaussians(1, (3,))
    x = mean1 + std1 * np.random.default_rng(0).normal(size=(200_000, 3))
    ratio = (log_density(x, mean1, std1) - log_density(x, mean2, std2)).sum(-1)
    error = 5 * ratio.std() / len(ratio) ** 0.5
    np.testing.assert_allclose(gaussian.kl_diagonal(mean1, std1, mean2, std2), ratio.mean(), atol=error)


def test_kl_of_equals_is_zero_and_of_others_is_not():
    mean1, std1, mean2, std2 = gaussians()
    np.testing.assert_array_equal(gaussian.kl_diagonal(mean1, std1, mean1, std1), np.zeros(5))
    assert (np.asarray(gaussian.kl_diagonal(mean1, std1, mean2, std2)) > 0).all()


def test_kl_by_hand():
    """KL[N(1, 2) || N(0, 1)] = (4 + 1 - 1)/2 - log 2; the other way round (1/4 + 1/4 - 1)/2 + log 2."""
    one, two, zero = np.ones(1), np.full(1, 2.0), np.zeros(1)
    np.testing.assert_allclose(gaussian.kl_diagonal(one, two, zero, one), 2 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gaussian.kl_diagonal(zero, one, one, two), -0.25 + np.log(2), rtol=1e-6)


def test_free_nats_are_a_floor_for_each_element():
    kl = jnp.array([0.0, 2.9, 3.0, 3.1, 10.0])
    np.testing.assert_array_equal(gaussian.free_nats(kl, 3.0), np.array([3, 3, 3, 3.1, 10], np.float32))
    slope = jax.vmap(jax.grad(lambda x: gaussian.free_nats(x, 3.0)))(kl)
    np.testing.assert_array_equal(slope[jnp.array([0, 1, 3, 4])], [0, 0, 1, 1])


@pytest.mark.parametrize(("event_axes", "shape"), [(0, (2, 3, 4)), (1, (2, 3)), (2, (2,)), (3, ())])
def test_unit_log_prob_equals_the_density_but_for_a_constant(event_axes, shape):
    rng = np.random.default_rng(0)
    value, mean = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    full = log_density(value.astype(np.float64), mean, 1.0) + 0.5 * np.log(2 * np.pi)
    expected = full.sum(axis=tuple(range(3 - event_axes, 3)))
    result = gaussian.unit_log_prob(value, mean, event_axes)
    assert result.shape == shape
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def density(x, mean, std):
    return -0.5 * np.square((x - mean) / std) - np.log(std) - 0.5 * np.log(2 * np.pi)


def test_gaussian_log_prob_equals_numpy():
    rng = np.random.default_rng(1)
    value, mean, std = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 3)), rng.uniform(0.1, 3, (4, 5, 3))
    found = gaussian.log_prob(*(jnp.asarray(x, jnp.float32) for x in (value, mean, std)))
    np.testing.assert_allclose(found, density(value, mean, std).sum(-1), rtol=1e-5)
    with pytest.raises(AssertionError):
        gaussian.log_prob(jnp.zeros((2, 3)), jnp.zeros(3), jnp.ones(3))
