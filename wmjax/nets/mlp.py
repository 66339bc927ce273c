"""Fully connected networks for one time step."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

glorot = nn.initializers.glorot_uniform()


class MLP(nn.Module):
    """Hidden layers with an activation, then a linear layer.

    widths: units of each hidden layer. out: units of the linear layer.
    """

    widths: Sequence[int]
    out: int
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x):
        """x [B, I] -> [B, out]."""
        for width in self.widths:
            x = self.activation(nn.Dense(width, kernel_init=glorot)(x))
        return nn.Dense(self.out, kernel_init=glorot)(x)


class GaussianHead(nn.Module):
    """Mean and standard deviation of a diagonal Gaussian; stddev = softplus(.) + min_std (PlaNet's code, 0.1)."""

    widths: Sequence[int]
    size: int
    activation: Callable = nn.relu
    min_std: float = 0.1

    @nn.compact
    def __call__(self, x):
        """x [B, I] -> mean [B, size], std [B, size]."""
        out = MLP(self.widths, 2 * self.size, self.activation)(x)
        mean, raw_std = jnp.split(out, 2, axis=-1)
        return mean, nn.softplus(raw_std) + self.min_std


class ObservedGaussianHead(nn.Module):
    """GaussianHead of [x, observation] whose observation half of the first layer was computed before (`project`).

    A dense layer of a concatenation is the sum of two dense layers, and only one of them depends on the recurrent
    state: the observation's half is one large matrix product over all time steps, outside the scan.
    """

    units: int
    size: int
    activation: Callable = nn.relu
    min_std: float = 0.1

    def setup(self):
        self.observed = nn.Dense(self.units, kernel_init=glorot, use_bias=False)
        self.recurrent = nn.Dense(self.units, kernel_init=glorot)
        self.head = GaussianHead((), self.size, self.activation, self.min_std)

    def project(self, embedding):
        """embedding [B, D] -> [B, units], the observation's share of the first layer."""
        return self.observed(embedding)

    def __call__(self, x, projected):
        """x [B, I], projected [B, units] -> mean [B, size], std [B, size]."""
        return self.head(self.activation(self.recurrent(x) + projected))

    def init_both(self, x, embedding):
        """Touches every parameter once, for `init`."""
        return self(x, self.project(embedding))
