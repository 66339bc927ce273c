"""Networks of actor-critics that read imagined rollouts (Buesing et al. 2018, appendix B.2), for ONE step of time.

image             - convolutions - linear, relu -------------------------------+
                                                                               +- logits [A], value
imagined features - two convolutions - flat, reward - linear, relu - LSTM -----+
                                                              (last step first)
state's features  - two convolutions - flat - linear, relu - logits [A]          of the policy of the rollouts
"""

import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.conv import Conv, identity
from wmjax.nets.mlp import glorot

# First logits of almost 0: all actions begin about equally likely. Not in the paper.
_near_zero = nn.initializers.orthogonal(0.01)


class Trunk(nn.Module):
    """Convolutions without padding, each followed by a relu, then a linear layer and a relu.

    kernels, strides, widths: of each convolution, one of three tuples as long as each other; units: of the linear
    layer.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    widths: tuple[int, ...]
    units: int

    @nn.compact
    def __call__(self, x):
        """x [B, X, Y, C] -> [B, units]."""
        activation = identity
        for kernel, stride, width in zip(self.kernels, self.strides, self.widths, strict=True):
            x, activation = Conv(width, kernel, stride, activation=activation)(x), nn.relu
        return nn.relu(nn.Dense(self.units, kernel_init=glorot)(activation(x).reshape(x.shape[0], -1)))


class StepEncoder(nn.Module):
    """What one imagined step says: strided convolutions for images, convolutions that keep the size, a linear layer.

    kernel, widths: of the convolutions that keep the size; units: of the linear layer; strided: channels of the
    convolutions before them, of 4 x 4 pixels, that halve the size (the stronger summariser of rendered images).
    """

    kernel: int
    widths: tuple[int, ...]
    units: int
    strided: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, features, reward=None):
        """features [B, X, Y, C], reward [B, 1] or None -> [B, units]."""
        x, activation = features, identity
        for width in self.strided:
            x, activation = Conv(width, 4, 2, padding="SAME", activation=activation)(x), nn.relu
        for width in self.widths:
            x, activation = Conv(width, self.kernel, padding="SAME", activation=activation)(x), nn.relu
        x = activation(x).reshape(x.shape[0], -1)
        x = x if reward is None else jnp.concatenate([x, reward], axis=-1)
        return nn.relu(nn.Dense(self.units, kernel_init=glorot)(x))


class RolloutPolicy(nn.Module):
    """The policy of the rollouts, of an imagined step's features alone.

    actions: A. body: a module, features -> [B, units].
    """

    actions: int
    body: nn.Module

    @nn.compact
    def __call__(self, features):
        """features [B, X, Y, C] -> logits [B, A]."""
        x = self.body(features)
        return nn.Dense(self.actions, kernel_init=_near_zero, name="logits")(x)


class Heads(nn.Module):
    """Logits of the policy and the value, linear in everything that is known."""

    actions: int

    @nn.compact
    def __call__(self, x):
        """x [B, F] -> (logits [B, A], value [B])."""
        logits = nn.Dense(self.actions, kernel_init=_near_zero, name="logits")(x)
        return logits, nn.Dense(1, kernel_init=glorot, name="value")(x)[:, 0]
