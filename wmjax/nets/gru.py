"""A fused gated recurrent unit for one time step.

    before (Cho et al. 2014; PlaNet's TensorFlow cell)         after (CuDNN, flax)

    r, u = sigmoid(Wx + Uh + b)                                r, u = sigmoid(Wx + Uh + b)
    c    = tanh(Wx + U (r * h) + b)                            c    = tanh(Wx + r * (U h + b'))
    h'   = u * h + (1 - u) * c                                 h'   = u * h + (1 - u) * c

The update gate keeps the old state, as in TensorFlow. One matrix product for each operand.
"""

import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.mlp import glorot


class GRU(nn.Module):
    """units: size U of the state; reset: 'before' or 'after' the candidate's product; gate_bias: of r and u."""

    units: int
    reset: str = "before"
    gate_bias: float = 1.0

    @nn.compact
    def __call__(self, h, x, projected=0.0):
        """h [B, U], x [B, I] -> new h [B, U].

        projected: [B, 3 U], W times a further input, computed beforehand; 0: there is none.
        """
        units = self.units
        input_kernel = self.param("input_kernel", glorot, (x.shape[-1], 3 * units))
        gates_kernel = self.param("gates_kernel", glorot, (units, 2 * units))
        candidate_kernel = self.param("candidate_kernel", glorot, (units, units))
        gates_bias = self.param("gates_bias", nn.initializers.constant(self.gate_bias), (2 * units,))
        candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (units,))

        from_input = x @ input_kernel + projected
        gates = nn.sigmoid(from_input[:, : 2 * units] + h @ gates_kernel + gates_bias[None])
        reset, update = jnp.split(gates, 2, axis=-1)
        if self.reset == "before":
            candidate = nn.tanh(from_input[:, 2 * units :] + (reset * h) @ candidate_kernel + candidate_bias[None])
        else:
            hidden_bias = self.param("hidden_bias", nn.initializers.zeros, (units,))
            hidden = h @ candidate_kernel + hidden_bias[None]
            candidate = nn.tanh(from_input[:, 2 * units :] + candidate_bias[None] + reset * hidden)
        return update * h + (1 - update) * candidate
