"""Rewards from images, or from a network's activations for images (Babaeizadeh et al. 2020, authors' code)."""

import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.conv import Conv
from wmjax.nets.mlp import MLP, glorot


def padding_for(grid, least):
    """ "VALID" as the authors have it, or "SAME" where a side of the grid [B, X, Y, C] is below `least`: not theirs."""
    return "VALID" if min(grid.shape[1:3]) >= least else "SAME"


class SequenceReward(nn.Module):
    """All rewards of a sequence at once: images, one after the other in the channels, [B, X, Y, T * C] -> [B, out]."""

    out: int

    @nn.compact
    def __call__(self, x):
        padding = padding_for(x, 31)  # 31 -> 15 -> 7 -> 3 -> 1
        for features in (32, 32, 16, 8):
            x = nn.relu(Conv(features, 3, 2, padding)(x))
        return MLP((32, 16), self.out)(x.reshape(x.shape[0], -1))


class ActivationReward(nn.Module):
    """A reward from grids of any sizes: a list of [B, X, Y, C] -> [B]."""

    @nn.compact
    def __call__(self, grids):
        codes = [self.code(x) for x in grids]
        x = nn.relu(nn.Dense(32, kernel_init=glorot)(jnp.concatenate(codes, -1)))
        x = nn.relu(nn.Dense(16, kernel_init=glorot)(x))
        return nn.Dense(1, kernel_init=glorot)(x)[:, 0]

    def code(self, x):
        """[B, X, Y, C] -> [B, 8]."""
        padding = padding_for(x, 9)  # 9 -> 7 -> 3 -> 1
        for features, stride in ((16, 1), (8, 2), (4, 2)):
            x = nn.relu(Conv(features, 3, stride, padding)(x))
        return nn.relu(nn.Dense(8, kernel_init=glorot)(x.reshape(x.shape[0], -1)))
