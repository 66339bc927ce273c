"""A convolutional LSTM cell (Shi et al. 2015) with layer norm and peepholes, as Smaller World Models uses it.

x, h --5x5, layer norm each, sum--> i f g o        c' = sigmoid(f + 1 + v_f c) c + sigmoid(i + v_i c) tanh(g)
                                                   h' = sigmoid(o + v_o c') tanh(c')
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.conv import Conv, fan_in_uniform
from wmjax.nets.norm import GridNorm


class ConvLSTM(nn.Module):
    """One step: (h, c), [B, X, Y, features] each, and x [B, X, Y, C] -> (h, c)."""

    features: int
    kernel: int

    @nn.compact
    def __call__(self, state, x):
        h, c = state
        conv = functools.partial(Conv, 4 * self.features, self.kernel, padding="SAME", use_bias=False)
        seen = GridNorm(name="norm_x")(conv(kernel_init=fan_in_uniform, name="conv_x")(x))
        kept = GridNorm(name="norm_h")(conv(kernel_init=fan_in_uniform, name="conv_h")(h))
        bias = self.param("bias", nn.initializers.zeros_init(), (4 * self.features,))
        peep_i, peep_f, peep_o = self.param("peepholes", nn.initializers.normal(1.0), (3, 1, 1, 1, self.features))
        i, f, g, o = jnp.split(seen + kept + bias[None, None, None], 4, axis=-1)
        c = nn.sigmoid(f + 1.0 + peep_f * c) * c + nn.sigmoid(i + peep_i * c) * jnp.tanh(g)
        return nn.sigmoid(o + peep_o * c) * jnp.tanh(c), c
