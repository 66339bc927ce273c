"""A conditional gated PixelCNN (van den Oord et al. 2016) over a small grid, for ONE time step.

Position (i, j) sees those before it in reading order: the rows above by a vertical stack, the left of its own row by a
horizontal one, and the condition at every layer. The first layer does not see the position itself.

    v' = gate(rows up to i of v)        h' = h + 1x1 gate(columns up to j of h, v', condition)
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np


def mask(kernel, rows, columns):
    """[k, k, 1, 1]: ones in the first `rows` rows of a kernel and the first `columns` columns of its middle row."""
    ones = np.zeros((kernel, kernel, 1, 1), np.float32)
    ones[:rows] = 1
    ones[kernel // 2, :columns] = 1
    return ones


def gate(x):
    """A gated activation, [..., 2 * C] -> [..., C]."""
    value, gate_logits = jnp.split(x, 2, axis=-1)
    return jnp.tanh(value) * nn.sigmoid(gate_logits)


class GatedPixelCNN(nn.Module):
    """x [B, X, Y, D] and condition [B, X, Y, C] -> [B, X, Y, out].

    What comes out at a position depends on the positions of x before it and on the condition everywhere it reaches.
    layers: gated layers. channels, kernel: of each.
    """

    out: int
    layers: int = 3
    channels: int = 128
    kernel: int = 5

    @nn.compact
    def __call__(self, x, condition):
        middle, size = self.kernel // 2, (self.kernel, self.kernel)
        down = across = x
        for i in range(self.layers):
            seen = 1 if i else 0  # of the row above the next one, and of the position itself
            above = np.broadcast_to(mask(self.kernel, middle + seen, 0), (*size, down.shape[-1], 2 * self.channels))
            left = np.broadcast_to(mask(self.kernel, 0, middle + seen), (*size, across.shape[-1], 2 * self.channels))
            down = nn.Conv(2 * self.channels, size, mask=above, name=f"down_{i}")(down)
            inner = nn.Conv(2 * self.channels, size, mask=left, name=f"across_{i}")(across)
            inner += nn.Dense(2 * self.channels, name=f"down_to_across_{i}")(down)
            inner += nn.Dense(2 * self.channels, use_bias=False, name=f"condition_{i}")(condition)
            inner = nn.Dense(self.channels, name=f"out_{i}")(gate(inner))
            if i + 1 < self.layers:
                down = gate(down + nn.Dense(2 * self.channels, use_bias=False, name=f"condition_down_{i}")(condition))
            across = across + inner if i else inner
        return nn.Dense(self.out, name="out")(nn.relu(across))
