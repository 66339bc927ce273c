"""The dynamics network of Smaller World Models (Robine et al. 2023, Fig. 5), for ONE step.

    [z, a] -> ConvLSTM -> [h1, a] -> ConvLSTM -> [h2, a] = y      latent head: y -> prior of the next latent
                                                                  reward head: y -> logits of -1, 0, 1
The action stands as one plane for each of its numbers beside the grid's channels.
"""

import flax.linen as nn

from wmjax.nets.blocks import with_action
from wmjax.nets.conv import Conv, fan_in_uniform
from wmjax.nets.conv_lstm import ConvLSTM
from wmjax.nets.norm import GridNorm
from wmjax.nets.pixel_cnn import GatedPixelCNN


class GridDynamics(nn.Module):
    """(cells, latent [B, X, Y, D], action [B, A]) -> cells; cells: (h, c) of each ConvLSTM."""

    cells: tuple[int, ...]
    kernel: int

    @nn.compact
    def __call__(self, cells, latent, action):
        x, after = latent, []
        for i, (width, state) in enumerate(zip(self.cells, cells, strict=True)):
            after.append(ConvLSTM(width, self.kernel, name=f"cell_{i}")(state, with_action(x, action)))
            x = after[-1][0]
        return tuple(after)


class GridHead(nn.Module):
    """(hidden [B, X, Y, C], action [B, A], latent) -> [B, X, Y, size]: every position's prior, whatever the others."""

    size: int

    @nn.compact
    def __call__(self, hidden, action, latent):
        return Conv(self.size, 1, kernel_init=fan_in_uniform)(with_action(hidden, action))


class AutoregressiveHead(nn.Module):
    """As GridHead, given the positions of latent [B, X, Y, D] that come before (section 4.3, Q4); as wide as hidden."""

    size: int

    @nn.compact
    def __call__(self, hidden, action, latent):
        return GatedPixelCNN(self.size, channels=hidden.shape[-1])(latent, with_action(hidden, action))


class GridReward(nn.Module):
    """(hidden [B, X, Y, C], action [B, A]) -> logits [B, 3] of the rewards -1, 0 and 1."""

    channels: int
    hidden: int

    @nn.compact
    def __call__(self, hidden, action):
        x = Conv(self.channels, 1, kernel_init=fan_in_uniform)(with_action(hidden, action))
        x = nn.leaky_relu(GridNorm()(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.leaky_relu(nn.Dense(self.hidden, kernel_init=fan_in_uniform)(x))
        return nn.Dense(3, kernel_init=fan_in_uniform)(x)
