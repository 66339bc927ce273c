"""The continuous Bernoulli against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops import continuous_bernoulli

CODES, SIZE = 5, 3


def outputs(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, SIZE)).astype(np.float32)


# Where the normaliser is that of a density.
LOGITS = [-15.9, -5.0, -0.51, -0.49, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 0.3, 0.499, 0.501, 2.0, 12.0, 15.9]


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_is_a_density_with_its_mean(logit):
    """By quadrature in float64 of exp(x l), whose integral the normaliser must invert."""
    x = np.linspace(0, 1, 400_001)
    unnormalised = np.exp(logit * x - max(logit, 0))
    weights = np.full_like(x, 1 / (len(x) - 1))
    weights[[0, -1]] /= 2
    total = (unnormalised * weights).sum()
    expected = np.log(unnormalised[[0, 123_456, -1]] / total)
    got = continuous_bernoulli.log_prob(jnp.array(x[[0, 123_456, -1]])[:, None], jnp.full((3, 1), logit), 1)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)
    mean = (x * unnormalised * weights).sum() / total
    np.testing.assert_allclose(continuous_bernoulli.mean(jnp.float32(logit)), mean, rtol=1e-5)


def test_continuous_bernoulli_is_smooth_where_the_series_takes_over():
    logits = jnp.linspace(0.49, 0.51, 2001)
    steps = jnp.diff(jax.vmap(jax.grad(continuous_bernoulli.log_normaliser))(logits))
    assert (np.abs(steps) < 1e-5).all()
    grads = jax.vmap(jax.grad(lambda l: continuous_bernoulli.log_prob(jnp.float32([0.3]), l[None], 1)))(
        jnp.float32(LOGITS)
    )
    assert np.isfinite(grads).all()
    np.testing.assert_allclose(grads, 0.3 - continuous_bernoulli.mean(jnp.float32(LOGITS)), atol=1e-5)


@pytest.mark.parametrize("x", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-200.0, -20.0, -15.0, 15.0, 20.0])
def test_continuous_bernoulli_has_a_floor(x, logit):
    """As in torch.distributions, whose normaliser sees probabilities clamped to float32's epsilon; here by numpy."""
    epsilon = np.float64(np.finfo(np.float32).eps)
    p = np.clip(1 / (1 + np.exp(-np.float64(logit))), epsilon, 1 - epsilon)
    expected = x * logit - np.logaddexp(0.0, logit) + np.log((np.log1p(-p) - np.log(p)) / (1 - 2 * p))
    log_prob = lambda logit: continuous_bernoulli.log_prob(jnp.full(1, x), logit[None], 1)
    value, slope = jax.value_and_grad(log_prob)(jnp.float32(logit))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    beyond = abs(logit) > np.log((1 - epsilon) / epsilon)
    certain = x - 1 / (1 + np.exp(-np.float64(logit)))  # the slope of a Bernoulli alone
    np.testing.assert_allclose(slope, certain if beyond else certain + 1 / logit, atol=1e-6)


@pytest.mark.parametrize("logit", [-30.0, 60.0, 1e6])
def test_continuous_bernoulli_means_have_no_floor(logit):
    x = 1 - 1 / logit if logit > 0 else -1 / logit
    np.testing.assert_allclose(continuous_bernoulli.mean(jnp.float32(logit)), x, rtol=1e-6)


def test_log_prob_sums_the_event_axes():
    x = np.random.default_rng(0).uniform(size=(2, 3, 4)).astype(np.float32)
    logits = outputs(8).reshape(2, 3, 4)
    each = continuous_bernoulli.log_prob(x[..., None], logits[..., None], 1)
    np.testing.assert_allclose(continuous_bernoulli.log_prob(x, logits, 2), each.sum((1, 2)), rtol=1e-5)
