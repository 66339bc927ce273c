"""The quantiser against numpy, and the continuous Bernoulli against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops import bernoulli, continuous_bernoulli
from wmjax.ops import vector_quantisation as vq

CODES, SIZE = 5, 3


def outputs(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, SIZE)).astype(np.float32)


def test_codes_are_the_nearest_vectors():
    vectors, x = outputs(CODES, 1), outputs(24).reshape(2, 3, 4, SIZE)
    codes = np.asarray(vq.nearest(jnp.array(vectors), jnp.array(x)))
    assert codes.shape == (2, 3, 4) and codes.dtype == np.int32
    for index in np.ndindex(codes.shape):
        assert codes[index] == np.argmin([np.linalg.norm(x[index] - v) for v in vectors])
    assert len(np.unique(codes)) > 2


def test_products_of_the_codebook_are_exact_on_every_device():
    """A GPU multiplies float32 in TF32, with ten bits, unless the product names its precision."""
    codebook = vq.init(jax.random.key(0), CODES, SIZE)

    def learnt(x):
        codes = vq.nearest(codebook.vectors, x)
        return vq.update(codebook, x, codes, decay=0.9, epsilon=1e-3)

    jaxpr = jax.make_jaxpr(learnt)(outputs(4))
    products = [each for each in jaxpr.eqns if each.primitive.name == "dot_general"]
    highest = jax.lax.Precision.HIGHEST
    assert [each.params["precision"] for each in products] == 2 * [(highest, highest)]


def test_the_gradient_goes_straight_through():
    x, vectors = jnp.array(outputs(4)), jnp.array(outputs(CODES, 1))
    weights = jnp.array(outputs(4, 2))

    def loss(x, vectors):
        quantised = vq.straight_through(x, vectors[vq.nearest(vectors, x)])
        return (weights * quantised).sum(), quantised

    (to_x, to_vectors), quantised = jax.grad(loss, (0, 1), has_aux=True)(x, vectors)
    np.testing.assert_allclose(to_x, weights)
    np.testing.assert_array_equal(to_vectors, 0)
    np.testing.assert_allclose(quantised, vectors[vq.nearest(vectors, x)], rtol=1e-6)


def test_the_codebook_equals_numpy_over_many_updates():
    """Moving sums and counts, bias corrected; a code that was never used goes to zero."""
    decay, epsilon = 0.9, 1e-3
    codebook = vq.init(jax.random.key(0), CODES, SIZE)
    assert (np.abs(codebook.vectors) <= np.sqrt(3 / CODES)).all() and codebook.vectors.std() > 0.3
    codebook = codebook.replace(vectors=codebook.vectors.at[-1].set(100.0))
    vectors = np.asarray(codebook.vectors, np.float64)
    sums, counts = np.zeros((CODES, SIZE)), np.zeros(CODES)
    for n in range(1, 8):
        x = outputs(11, seed=n)
        codes = np.array([np.argmin(np.square(row - vectors).sum(-1)) for row in x])
        np.testing.assert_array_equal(vq.nearest(codebook.vectors, x), codes)
        codebook = vq.update(codebook, jnp.array(x), jnp.array(codes), decay=decay, epsilon=epsilon)
        for k in range(CODES):
            sums[k] = decay * sums[k] + (1 - decay) * x[codes == k].sum(0)
            counts[k] = decay * counts[k] + (1 - decay) * (codes == k).sum()
        right = counts / (1 - decay**n)
        share = (right + epsilon) / (right.sum() + CODES * epsilon) * right.sum()
        vectors = sums / (1 - decay**n) / share[:, None]
        np.testing.assert_allclose(codebook.vectors, vectors, rtol=1e-4, atol=1e-5)
        if n == 1:
            np.testing.assert_array_equal(codebook.vectors[-1], 0)
    assert (np.abs(vectors).sum(-1) > 0.1).sum() >= 3


def test_a_settled_codebook_holds_the_means_of_its_outputs():
    codebook = vq.init(jax.random.key(1), 2, 1)
    x = jnp.array([[-3.0], [-1.0], [4.0], [6.0]])
    for _ in range(200):
        codes = vq.nearest(codebook.vectors, x)
        codebook = vq.update(codebook, x, codes, decay=0.9, epsilon=1e-5)
    np.testing.assert_allclose(np.sort(codebook.vectors[:, 0]), [-2, 5], atol=1e-3)


def test_perplexity_counts_the_codes_in_use():
    np.testing.assert_allclose(vq.perplexity(jnp.array([[0, 1], [2, 3]]), 8), 4, rtol=1e-5)
    np.testing.assert_allclose(vq.perplexity(jnp.zeros(5, int), 8), 1, rtol=1e-5)
    np.testing.assert_allclose(vq.perplexity(jnp.array([0, 0, 1, 2]), 8), np.exp(1.5 * np.log(2)), rtol=1e-5)


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


def test_bernoulli_by_hand():
    x, logits = np.float32([[0.0, 0.25, 1.0]]), np.float32([[-1.0, 0.5, 3.0]])
    p = 1 / (1 + np.exp(-np.float64(logits)))
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(bernoulli.log_prob(jnp.array(x), jnp.array(logits), 1), expected, rtol=1e-5)
    np.testing.assert_allclose(bernoulli.mean(jnp.array(logits)), p, rtol=1e-5)


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
