"""Uniform noise that costs next to nothing, for draws as large as a batch of images."""

import math

import jax
import jax.numpy as jnp
import numpy as np

GOLDEN = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio: neighbouring elements begin far apart
ROUNDS = ((16, np.uint32(0x85EBCA6B)), (13, np.uint32(0xC2B2AE35)))  # shift, factor: MurmurHash3's finaliser


def uniform(key, shape):
    """Uniform numbers in [0, 1), multiples of 2^-24: each a hash of its place and of two words drawn with the key.

    `jax.random.uniform` computes twenty rounds of threefry for every two elements, a tenth of PlaNet's update on a CPU.
    This is two rounds and fuses with what reads it. Good enough for noise on pixels; not for choosing or sampling.

    Args:
        key: PRNG key.
        shape: of the result, at most 2^32 elements.

    Returns:
        float32 of that shape.
    """
    word = jax.random.bits(key, (2,), jnp.uint32)
    bits = jax.lax.iota(jnp.uint32, math.prod(shape)) * GOLDEN + word[0]
    for shift, factor in ROUNDS:
        bits = ((bits ^ (bits >> shift)) * factor) ^ word[1]
    bits = bits ^ (bits >> 16)
    return ((bits >> 8).astype(jnp.float32) * np.float32(2**-24)).reshape(shape)
