"""Vector quantisation with moving averages for the codebook (van den Oord et al. 2017, appendix A.1).

encoder output e [.., D] -> code k = argmin |e - v_k|  ->  v_k, whose gradient goes straight through to e
v_k = average of the outputs assigned to k: moving sum of them / moving count
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from wmjax.types import Array


@struct.dataclass
class Codebook:
    """K codes of D numbers and the averages they are made of; all float32."""

    vectors: Array  # [K, D]
    sums: Array  # [K, D], moving average over updates of the outputs assigned to each code
    counts: Array  # [K], moving average of their number
    weight: Array  # [], what the moving averages of ones would be: 1 - decay ** updates


def init(key, codes, size):
    """A codebook of `codes` vectors of `size`, uniform in +-sqrt(3 / codes) (authors' code), no averages yet."""
    limit = (3 / codes) ** 0.5
    vectors = jax.random.uniform(key, (codes, size), minval=-limit, maxval=limit)
    return Codebook(vectors, jnp.zeros((codes, size)), jnp.zeros(codes), jnp.zeros(()))


def nearest(vectors, x):
    """Indices of the nearest of `vectors` [K, D] to each of x [..., D]: int32 [...]."""
    chex.assert_axis_dimension(x, -1, vectors.shape[1])
    flat = x.reshape(-1, vectors.shape[1])
    distances = jnp.square(vectors).sum(-1)[None] - 2 * _product(flat, vectors.T)  # without |x|^2, the same for all
    return jnp.argmin(distances, axis=-1).reshape(x.shape[:-1])


def _product(a, b):
    """The matrix product in float32: a GPU's TF32, with ten bits, picks other codes among near ones."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def straight_through(x, quantised):
    """`quantised` in value, with the gradient of x."""
    return x + jax.lax.stop_gradient(quantised - x)


def update(codebook, x, codes, *, decay, epsilon):
    """The codebook after one more batch of encoder outputs.

    Args:
      x: float32 [N, D]; codes: int32 [N], their nearest ones.
      decay: of the moving averages; epsilon: what every code's share of the counts is smoothed by.
    """
    chex.assert_rank([x, codes], [2, 1])
    x = jax.lax.stop_gradient(x)
    assigned = jax.nn.one_hot(codes, len(codebook.vectors))  # [N, K]

    def moving_average(old, new):
        return decay * old + (1 - decay) * new

    sums = moving_average(codebook.sums, _product(assigned.T, x))
    counts = moving_average(codebook.counts, assigned.sum(0))
    weight = moving_average(codebook.weight, 1.0)
    unbiased = counts / weight
    total = unbiased.sum()
    smooth = (unbiased + epsilon) / (total + len(unbiased) * epsilon) * total
    return Codebook(sums / weight / smooth[:, None], sums, counts, weight)


def restart(codebook, key, x, least):
    """The codebook in which codes that are hardly used begin again at encoder outputs (Dhariwal et al. 2020, Jukebox).

    Args:
      x: float32 [N, D], encoder outputs that are drawn from.
      least: moving average of a code's outputs in a batch below which it is drawn anew. A new code counts as if it had
        had so many, at least one, in every batch: it stays until the averages say otherwise.
    """
    dead = codebook.counts < least * codebook.weight  # [K]
    drawn = jax.random.choice(key, jax.lax.stop_gradient(x), (len(dead),))
    count = codebook.weight * jnp.maximum(least, 1.0)
    return codebook.replace(
        vectors=jnp.where(dead[:, None], drawn, codebook.vectors),
        sums=jnp.where(dead[:, None], count * drawn, codebook.sums),
        counts=jnp.where(dead, count, codebook.counts),
    )


def perplexity(codes, size):
    """exp of the entropy of the codes' frequencies: the effective number of codes in use, from 1 to `size`."""
    share = jax.nn.one_hot(codes.reshape(-1), size).mean(0)
    return jnp.exp(jax.scipy.special.entr(share).sum())
