"""Rewards as bits (Buesing et al. 2018, appendix A.2): binary digits, a sign and whether there is any, all Bernoulli.

reward   -6.0   ->   0 1 1 0 .. (|r| = 0*1 + 1*2 + 1*4, least digit first)   negative 1   zero 0
"""

import chex
import jax
import jax.numpy as jnp

from wmjax.ops import bernoulli


def encode(reward, digits):
    """Rewards [...] -> float32 [..., digits + 2] of zeros and ones; |r| is rounded down and clipped to 2^digits - 1.

    Larger rewards are clipped silently: whoever loads data checks that the digits hold them.
    """
    size = jnp.minimum(jnp.floor(jnp.abs(reward)), 2.0**digits - 1).astype(jnp.int32)
    bits = [size >> i & 1 for i in range(digits)]
    return jnp.stack([*bits, reward < 0, reward == 0], axis=-1).astype(jnp.float32)


def log_prob(reward, logits):
    """Log probability of rewards [...] under logits [..., digits + 2] of their bits."""
    return bernoulli.log_prob(encode(reward, logits.shape[-1] - 2), logits, 1)


def mean(logits):
    """The mean reward [...] of independent bits with logits [..., digits + 2]."""
    chex.assert_axis_dimension_gt(logits, -1, 2)
    p = jax.nn.sigmoid(logits)
    size = p[..., :-2] @ 2.0 ** jnp.arange(logits.shape[-1] - 2)
    return (1 - p[..., -1]) * (1 - 2 * p[..., -2]) * size
