"""Normalisation whose statistics are explicit: nothing here keeps state."""

import flax.linen as nn
import jax.numpy as jnp

EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Normalises each channel over batch and positions: [B, X, Y, C] -> ([B, X, Y, C], statistics).

    running: (mean, variance), [C] each, to use instead of the batch's own. Returns the statistics used.
    """

    @nn.compact
    def __call__(self, x, running=None):
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        mean, variance = running or (x.mean((0, 1, 2)), x.var((0, 1, 2)))
        factor = scale / jnp.sqrt(variance + EPSILON)
        return x * factor[None, None, None] + (bias - mean * factor)[None, None, None], (mean, variance)


class GridNorm(nn.Module):
    """Layer norm over channels and positions together, with a scale and a bias for each: [B, X, Y, C] -> the same."""

    @nn.compact
    def __call__(self, x):
        axes = (-3, -2, -1)
        return nn.LayerNorm(epsilon=EPSILON, reduction_axes=axes, feature_axes=axes)(x)


class ChannelNorm(nn.Module):
    """Layer norm over channels and positions together, with a scale and a bias for each channel: [B, X, Y, C]."""

    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(epsilon=EPSILON, reduction_axes=(-3, -2, -1), feature_axes=-1)(x)
