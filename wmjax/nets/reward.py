"""Networks of the trade-offs study that predict rewards (Babaeizadeh et al. 2020).

`ImageRewards` is that of LT_OR and OT_OR. It sees all images of a horizon at once, as channels of one, and returns all
rewards at once. The paper writes r_t ~ p(r_t | o_t+1) and has no table of its layers; the authors' code, this network,
gives its counts of parameters. `ActivationReward` is that of OT_LR, `RewardHead` the end of R.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from wmjax.nets.conv import Conv
from wmjax.nets.images import ImageEncoder
from wmjax.nets.mlp import MLP, glorot

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.3)  # Keras' default, which the authors' code takes


class ImageRewards(nn.Module):
    """Images [B, K, X, Y, C] of K times -> rewards [B, out].

    out: how many rewards; K may be more, where images are seen before the first reward.
    widths: channels of the convolutions (kernel 3, stride 2, valid).
    """

    out: int
    widths: tuple[int, ...] = (32, 32, 16, 8)

    @nn.compact
    def __call__(self, images, known=None):
        """known: rewards [B, R] that are an input too; None: there are none."""
        chex.assert_rank(images, 5)
        stacked = jnp.moveaxis(images, 1, 3)  # [B, X, Y, K, C]
        code = ImageEncoder(self.widths, kernel=3, name="images")(stacked.reshape(*stacked.shape[:3], -1))
        if known is not None:
            code = jnp.concatenate([code, nn.relu(MLP((32, 16), 8, name="known")(known))], axis=-1)
        return MLP((32, 16), self.out, name="head")(code)


class RewardHead(nn.Module):
    """Hidden layers with leaky relus, then a linear layer: [B, I] -> [B, out].

    widths: units of each hidden layer; dropout: share of them that is zero where there is a key.
    """

    widths: tuple[int, ...]
    out: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, key=None):
        """key: of the dropout, in training; None: there is none."""
        for i, width in enumerate(self.widths):
            x = leaky_relu(nn.Dense(width, kernel_init=glorot)(x))
            if key is not None:
                kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - self.dropout, x.shape)
                x = jnp.where(kept, x / (1 - self.dropout), 0.0)
        return nn.Dense(self.out, kernel_init=glorot)(x)


def padding_for(grid, least):
    """ "VALID" as the authors have it, or "SAME" where a side of the grid [B, X, Y, C] is below `least`: not theirs."""
    return "VALID" if min(grid.shape[1:3]) >= least else "SAME"


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
