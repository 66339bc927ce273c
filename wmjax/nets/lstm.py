"""A fused LSTM (Hochreiter & Schmidhuber 1997; Gers et al. 2000) for one time step.

    i, f, g, o = Wx + Uh + b        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)        h' = sigmoid(o) * tanh(c')

One matrix product for each operand. The bias of the forget gate starts at 1.
"""

import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.mlp import glorot


class LSTM(nn.Module):
    """units: size U of h and of c."""

    units: int

    @nn.compact
    def __call__(self, h, c, x):
        """h, c [B, U] and x [B, I] -> (h, c)."""
        input_kernel = self.param("input_kernel", glorot, (x.shape[-1], 4 * self.units))
        recurrent_kernel = self.param("recurrent_kernel", nn.initializers.orthogonal(), (self.units, 4 * self.units))
        bias = self.param("bias", forget_first, (4 * self.units,))
        i, f, g, o = jnp.split(x @ input_kernel + h @ recurrent_kernel + bias[None], 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return nn.sigmoid(o) * jnp.tanh(c), c


def forget_first(key, shape, dtype=jnp.float32):
    """Zeros, and ones for the forget gates, the second quarter."""
    quarter = shape[0] // 4
    return jnp.zeros(shape, dtype).at[quarter : 2 * quarter].set(1)
