"""Networks of the trade-offs study that predict rewards (Babaeizadeh et al. 2020).

`ImageRewards` is that of LT_OR and OT_OR. It sees all images of a horizon at once, as channels of one, and returns all
rewards at once. The paper writes r_t ~ p(r_t | o_t+1) and has no table of its layers; the authors' code, this network,
gives its counts of parameters. `RewardHead` is the end of R.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

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
