"""Images with fewer bits (Kingma & Dhariwal 2018; PlaNet, appendix A: 5 bits).

A pixel's top `bits` bits name a bin of width 2^-bits in [-0.5, 0.5):

    uint8   0..7   8..15  ...  248..255        (bits = 5)
    bin      0       1    ...     31       ->  bin / 32 - 0.5
"""

import chex
import jax.numpy as jnp

from wmjax.ops import noise


def bin_start(obs, bits):
    """Lower edge of each pixel's bin. obs uint8 [...]; bits in 1..8. Returns float32 [...] in [-0.5, 0.5 - 2^-bits]."""
    chex.assert_type(obs, jnp.uint8)
    bins = 2**bits
    return (obs >> (8 - bits)).astype(jnp.float32) / bins - 0.5


def bin_centre(obs, bits):
    """Middle of each pixel's bin: no noise, so the same image gives the same numbers. Shapes as bin_start."""
    return bin_start(obs, bits) + 0.5 / 2**bits


def dequantise(key, obs, bits):
    """Uniform noise over each pixel's bin: the density then bounds that of the discrete image. Shapes as bin_start."""
    return bin_start(obs, bits) + noise.uniform(key, obs.shape) / 2**bits


def to_uint8(image):
    """Inverse of `bin_start` for showing: float [-0.5, 0.5] -> uint8 [0, 255], clipped."""
    return jnp.clip(jnp.round((image + 0.5) * 255.0), 0, 255).astype(jnp.uint8)
