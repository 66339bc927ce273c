"""Policies of Smaller World Models (Robine et al. 2023, section 3.2.3): action logits and a value for one time step.

    image   [X, Y, C] - conv 4x4 / 2 - norm - ... - grid
    grid    [X, Y, C] - conv 1x1 - norm - conv 5x5 - norm - flat -+                         +- logits [M]
    vector                                                  flat -+- linear - ... - linear -+- value

Leaky ReLUs after every layer but the last two. What the paper leaves open (kernels, widths, no bias before a
norm) is as in the authors' code, the first weights (fan_in_uniform) too: all actions begin about equally likely.
"""

import functools

import chex
import flax.linen as nn

from wmjax.nets.conv import Conv, fan_in_uniform
from wmjax.nets.norm import GridNorm


class VectorPolicy(nn.Module):
    """Linear layers for flat latents (the paper's ablation, section 4.3, Q2, names no sizes).

    actions: M. widths: units of each hidden layer.
    """

    actions: int
    widths: tuple[int, ...] = (512, 512)

    @nn.compact
    def __call__(self, features):
        """features [B, F] -> (logits [B, M], value [B])."""
        chex.assert_rank(features, 2)
        x = features
        for width in self.widths:
            x = nn.leaky_relu(nn.Dense(width, kernel_init=fan_in_uniform)(x))
        logits = nn.Dense(self.actions, kernel_init=fan_in_uniform, name="logits")(x)
        value = nn.Dense(1, kernel_init=fan_in_uniform, name="value")(x)
        return logits, value[:, 0]


class GridPolicy(nn.Module):
    """Two convolutions for latents that are a grid of embedding vectors (Fig. 6), then linear layers.

    actions: M. channels: of both convolutions. kernel: of the second. widths: units of each hidden linear layer.
    """

    actions: int
    channels: int = 64
    kernel: int = 5
    widths: tuple[int, ...] = (512,)

    @nn.compact
    def __call__(self, features):
        """features [B, X, Y, C], the grid -> (logits [B, M], value [B])."""
        chex.assert_rank(features, 4)
        conv = functools.partial(Conv, self.channels, use_bias=False, kernel_init=fan_in_uniform)
        x = GridNorm()(conv(kernel=1)(features))
        x = GridNorm()(conv(kernel=self.kernel, padding="SAME", activation=nn.leaky_relu)(x))
        x = nn.leaky_relu(x).reshape(features.shape[0], -1)  # [B, X * Y * channels]
        return VectorPolicy(self.actions, self.widths)(x)


class ImagePolicy(nn.Module):
    """Strided convolutions for images, each halving them, then as GridPolicy (section 4.3, Q3, names no sizes).

    actions: M. strided: channels of the convolutions that halve the image. channels, kernel, widths: of GridPolicy.
    """

    actions: int
    strided: tuple[int, ...]
    channels: int = 64
    kernel: int = 5
    widths: tuple[int, ...] = (512,)

    @nn.compact
    def __call__(self, features):
        """features [B, X, Y, C], the image -> (logits [B, M], value [B])."""
        chex.assert_rank(features, 4)
        conv = functools.partial(Conv, kernel=4, stride=2, padding="SAME", use_bias=False, kernel_init=fan_in_uniform)
        x = features
        for width in self.strided:
            x = nn.leaky_relu(GridNorm()(conv(width)(x)))
        return GridPolicy(self.actions, self.channels, self.kernel, self.widths)(x)
