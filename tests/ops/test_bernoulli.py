"""Bernoulli likelihoods and divergences by hand and against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops import bernoulli, gaussian
from wmjax.ops.frames import unit_pixels


def test_bernoulli_by_hand():
    x, logits = np.float32([[0.0, 0.25, 1.0]]), np.float32([[-1.0, 0.5, 3.0]])
    p = 1 / (1 + np.exp(-np.float64(logits)))
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(bernoulli.log_prob(jnp.array(x), jnp.array(logits), 1), expected, rtol=1e-5)
    np.testing.assert_allclose(bernoulli.mean(jnp.array(logits)), p, rtol=1e-5)


kl_diagonal, bernoulli_kl = jax.jit(gaussian.kl_diagonal), jax.jit(bernoulli.kl, static_argnums=2)


def test_bernoulli_logits_are_finite_and_have_their_mean():
    pixels = np.float32([0, 1, 3, 128, 255]) / 255
    logits = np.asarray(bernoulli.logits(pixels))
    np.testing.assert_allclose(logits[[0, -1]], [-np.log(509), np.log(509)], rtol=1e-4)
    np.testing.assert_allclose(bernoulli.mean(logits)[1:-1], pixels[1:-1], rtol=1e-4)


def test_bernoulli_kl_equals_numpy():
    """Of every value that a uint8 pixel has, black and white among them."""
    pixels = np.arange(256).repeat(4).reshape(32, 8, 4)
    logits = np.random.default_rng(0).normal(0, 4, pixels.shape)
    x, q = pixels / 255, 1 / (1 + np.exp(-logits))
    with np.errstate(divide="ignore", invalid="ignore"):
        white, black = (np.where(p > 0, p * np.log(p / other), 0) for p, other in ((x, q), (1 - x, 1 - q)))
    in_float = unit_pixels(pixels.astype(np.uint8))
    found = bernoulli_kl(in_float, logits.astype(np.float32), 2)
    np.testing.assert_allclose(found, (white + black).sum((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("x", [0.0, 1.0, float(np.nextafter(np.float32(1), np.float32(2))), 0.25])
def test_bernoulli_kl_is_zero_where_equal_and_never_nan(x):
    p = np.clip(x, 1e-6, 1 - 1e-6)
    logit = np.log(p / (1 - p))
    logits = np.array([logit, logit + 3, logit - 3, -200, 200], np.float32)[:, None]
    pixel = np.full((5, 1), x, np.float32)
    kl, gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda logit, x: bernoulli.kl(x, logit, 1))))(logits, pixel)
    assert abs(kl[0]) < 2e-5 and np.isfinite(kl).all() and np.isfinite(gradient).all()
    wrong = [way for way in (1, 2) if x not in (0, 1) or (way == 1) == (x == 0)]
    assert (kl[np.array(wrong)] > 1e-6).all() or x > 1
