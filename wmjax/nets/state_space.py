"""The modules of the state-space models (Buesing et al. 2018, appendix A, Figs. 6 to 14), for ONE step.

Everything is a feature map at an eighth of the image's resolution, for the paper's blocks of 4 and 2 pixels a side. C:
channels of the state, 64 in the paper, and the measure of all other widths but the encoder's and the decoder's, whose
`width` is also 64 there. Convolutions keep the size; images change it by blocks of pixels in the channels.

    conv stack      conv k1, c1 -> (+ relu conv k2, c2) -> relu conv k3, c3
    res conv        x -> x[.., :C] + conv stack (3, 5, 3)
    pool & inject   x -> [x, max over all positions of a conv of x]

The figures leave two sums open. Ours: in a stack round its second layer, whose width is always that of the first; in a
res conv to the first C channels of its input, which are the state's.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from wmjax.nets.blocks import to_depth, to_space, with_action
from wmjax.nets.conv import Conv

MIN_STD = 1e-3  # not in the paper: keeps a divergence finite


class ConvStack(nn.Module):
    """[B, X, Y, c] -> [B, X, Y, channels[-1]] (Fig. 6)."""

    kernels: tuple[int, int, int]
    channels: tuple[int, int, int]

    @nn.compact
    def __call__(self, x):
        x = Conv(self.channels[0], self.kernels[0], padding="SAME")(x)
        x += Conv(self.channels[1], self.kernels[1], padding="SAME", activation=nn.relu)(x)
        return Conv(self.channels[2], self.kernels[2], padding="SAME", activation=nn.relu)(x)


class ResConv(nn.Module):
    """[B, X, Y, c] -> [B, X, Y, channels], c >= channels (Fig. 7)."""

    channels: int

    @nn.compact
    def __call__(self, x):
        half = self.channels // 2
        y = Conv(half, 3, padding="SAME")(x)
        y = Conv(half, 5, padding="SAME", activation=nn.relu)(y)
        y = Conv(self.channels, 3, padding="SAME", activation=nn.relu)(y)
        return x[..., : self.channels] + y


class PoolInject(nn.Module):
    """[B, X, Y, c] -> [B, X, Y, c + channels]: what is anywhere is known everywhere (Fig. 8)."""

    channels: int

    @nn.compact
    def __call__(self, x):
        pooled = Conv(self.channels, 3, padding="SAME")(x).max(axis=(1, 2), keepdims=True)
        return jnp.concatenate([x, jnp.broadcast_to(pooled, (*x.shape[:3], self.channels))], axis=-1)


class Transition(nn.Module):
    """(maps [B, X, Y, c] each, the state [B, X, Y, C] first, action [B, A]) -> next state [B, X, Y, C] (Fig. 9)."""

    channels: int

    @nn.compact
    def __call__(self, maps, action):
        x = with_action(jnp.concatenate(maps, axis=-1), action)
        x = nn.relu(ResConv(self.channels, name="before")(x))
        return ResConv(self.channels, name="after")(PoolInject(self.channels // 2, name="pool")(x))


class FrameEncoder(nn.Module):
    """Image in [0, 1], or its deviation from a background, [B, 8 X, 8 Y, c] -> [B, X, Y, C], not negative (Fig. 11).

    blocks: sides of the blocks of pixels that each stage puts into the channels; their product is the 8 above.
    """

    channels: int
    width: int
    blocks: tuple[int, int] = (4, 2)

    @nn.compact
    def __call__(self, image):
        quarter, half = self.width // 4, self.width // 2
        x = ConvStack((3, 5, 3), (quarter, quarter, self.width), name="fine")(to_depth(image, self.blocks[0]))
        x = ConvStack((3, 5, 3), (half, half, self.channels), name="coarse")(to_depth(x, self.blocks[1]))
        return nn.relu(x)


class FrameDecoder(nn.Module):
    """Feature map [B, X, Y, c] -> logits of the image's pixels [B, 8 X, 8 Y, image_channels] (Fig. 10).

    blocks: as the encoder's, which this undoes from the last to the first.
    """

    width: int
    image_channels: int
    blocks: tuple[int, int] = (4, 2)

    @nn.compact
    def __call__(self, x):
        half = self.width // 2
        x = ConvStack((1, 5, 3), (half, half, self.width), name="coarse")(x)
        last = self.blocks[0] ** 2 * self.image_channels
        fine = ConvStack((3, 3, 1), (self.width, self.width, last), name="fine")
        return to_space(fine(to_space(x, self.blocks[1])), self.blocks[0])


class RewardBits(nn.Module):
    """Feature map [B, X, Y, c] -> logits of a reward's bits [B, size] (Fig. 10)."""

    channels: int
    size: int

    @nn.compact
    def __call__(self, x):
        x = Conv(3 * self.channels // 8, 3, padding="SAME")(x)
        return nn.Dense(self.size)(nn.relu(x).reshape(x.shape[0], -1))


class LatentHead(nn.Module):
    """(maps [B, X, Y, c] each, action [B, A]) -> mean and standard deviation, [B, X, Y, C / 2] each (Figs. 12, 13).

    std: what standard deviations are about before training; that of softplus is log 2.
    """

    channels: int
    std: float = math.log(2)

    @nn.compact
    def __call__(self, maps, action):
        half = self.channels // 2
        x = with_action(jnp.concatenate(maps, axis=-1), action)
        mean, spread = jnp.split(ConvStack((1, 3, 3), (half, half, self.channels))(x), 2, axis=-1)
        return mean, jax.nn.softplus(spread + math.log(math.expm1(self.std))) + MIN_STD


class InitialState(nn.Module):
    """(embeddings of the newest images [B, X, Y, N * C], actions between them [B, A]) -> [B, X, Y, C] (Fig. 14).

    The paper's first state sees no actions (A = 0); an auto-regressive model's does.
    """

    channels: int

    @nn.compact
    def __call__(self, embeddings, actions):
        return ConvStack((1, 3, 3), (self.channels,) * 3)(with_action(embeddings, actions))
