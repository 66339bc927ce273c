"""The network of the trade-offs study that reads rewards off images (Babaeizadeh et al. 2020, LT_OR and OT_OR).

It sees all images of a horizon at once, as channels of one, and returns all rewards at once. The paper writes
r_t ~ p(r_t | o_t+1) and has no table of its layers; the authors' code, this network, gives its counts of parameters.
"""

import chex
import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.images import ImageEncoder
from wmjax.nets.mlp import MLP


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
        code = ImageEncoder(self.widths, kernel=3)(stacked.reshape(*stacked.shape[:3], -1))
        if known is not None:
            code = jnp.concatenate([code, nn.relu(MLP((32, 16), 8)(known))], axis=-1)
        return MLP((32, 16), self.out)(code)
