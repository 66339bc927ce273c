"""The quantiser against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

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


def test_codes_that_are_hardly_used_begin_again():
    """The unused one becomes an output of the batch and is used from then on; the others stand as they were."""
    x = jnp.array([[-23.0], [-21.0], [14.0], [16.0]])  # all far from 0, where an unused code goes
    codebook = vq.init(jax.random.key(1), 3, 1).replace(vectors=jnp.array([[-22.0], [15.0], [900.0]]))
    for _ in range(30):
        codebook = vq.update(codebook, x, vq.nearest(codebook.vectors, x), decay=0.9, epsilon=1e-5)
    jax.tree.map(np.testing.assert_array_equal, vq.restart(codebook, jax.random.key(0), x, 0.0), codebook)
    restarted = vq.restart(codebook, jax.random.key(0), x, 0.5)
    np.testing.assert_array_equal(restarted.vectors[:2], codebook.vectors[:2])
    assert float(restarted.vectors[2, 0]) in x[:, 0]
    used = vq.update(restarted, x, vq.nearest(restarted.vectors, x), decay=0.9, epsilon=1e-5)
    assert abs(float(used.vectors[2, 0] - restarted.vectors[2, 0])) < 1  # no jump away from where it was put
    assert vq.perplexity(vq.nearest(used.vectors, x), 3) > 2.5


def test_perplexity_counts_the_codes_in_use():
    np.testing.assert_allclose(vq.perplexity(jnp.array([[0, 1], [2, 3]]), 8), 4, rtol=1e-5)
    np.testing.assert_allclose(vq.perplexity(jnp.zeros(5, int), 8), 1, rtol=1e-5)
    np.testing.assert_allclose(vq.perplexity(jnp.array([0, 0, 1, 2]), 8), np.exp(1.5 * np.log(2)), rtol=1e-5)
