"""The autoencoder of Smaller World Models (Robine et al. 2023, Fig. 4), for ONE batch of images.

    encoder   image -> conv 4x4 / 2 for every width, two residual blocks, conv 1x1 -> grid
    decoder   grid -> conv 3x3, two residual blocks, transposed conv 4x4 / 2 for every width -> logits of pixels

The encoder has batch norm after each convolution, see `wmjax.nets.norm`. Activations (leaky ReLU) stand before the
next convolution. With kernels of 2 instead of 4, and 1 instead of 3, every cell of the grid sees a patch of its own.
"""

import functools

import flax.linen as nn

from wmjax.nets.conv import Conv, ConvTranspose, fan_in_uniform, identity
from wmjax.nets.norm import BatchNorm

BLOCKS = 2  # residual blocks, of encoder and decoder each


class GridEncoder(nn.Module):
    """[B, X, Y, C] in [0, 1] -> ([B, X / 2^n, Y / 2^n, size], statistics), n = len(widths).

    running: the statistics to normalise with, a tuple as it is returned; None: the batch's own.
    kernel: of the strided convolutions, even; that of the residual blocks is one less.
    """

    widths: tuple[int, ...]
    size: int
    kernel: int = 4

    @nn.compact
    def __call__(self, x, running=None):
        running_by_layer = iter(running or ())
        statistics = []

        def norm(x, name):
            y, used = BatchNorm(name=f"norm_{name}")(x, next(running_by_layer, None))
            statistics.append(used)
            return y

        def conv(x, name, features, kernel, stride=1, activation=nn.leaky_relu):
            layer = functools.partial(Conv, padding="SAME", use_bias=False, kernel_init=fan_in_uniform)
            return norm(layer(features, kernel, stride, activation=activation, name=f"conv_{name}")(x), name)

        for i, width in enumerate(self.widths):
            x = conv(x, f"down_{i}", width, self.kernel, 2, activation=nn.leaky_relu if i else identity)
        for i in range(BLOCKS):
            x = nn.leaky_relu(x)
            inner = conv(x, f"block_{i}_a", x.shape[-1], self.kernel - 1, activation=identity)
            x = x + conv(inner, f"block_{i}_b", x.shape[-1], 1, activation=nn.relu)
        return conv(x, "out", self.size, 1), tuple(statistics)


class GridMoments(nn.Module):
    """As GridEncoder, for a number with a normal distribution at each position: [..., 2], its mean and log variance."""

    widths: tuple[int, ...]
    size: int
    kernel: int = 4

    @nn.compact
    def __call__(self, x, running=None):
        x, statistics = GridEncoder(self.widths, self.size, self.kernel, name="grid")(x, running)
        return Conv(2, 1, activation=nn.leaky_relu, kernel_init=fan_in_uniform, name="moments")(x), statistics


class GridDecoder(nn.Module):
    """[B, G, G, D] -> logits [B, G * 2^n, G * 2^n, channels], n = len(widths); widths from the grid outwards."""

    widths: tuple[int, ...]
    channels: int
    kernel: int = 4

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(Conv, padding="SAME", kernel_init=fan_in_uniform)
        up = functools.partial(ConvTranspose, kernel=self.kernel, stride=2, kernel_init=fan_in_uniform)
        x = conv(self.widths[0], self.kernel - 1, name="conv_in")(x)
        for i in range(BLOCKS):
            x = nn.leaky_relu(x)
            inner = conv(self.widths[0], self.kernel - 1, name=f"conv_block_{i}_a")(x)
            x = x + conv(self.widths[0], 1, activation=nn.relu, name=f"conv_block_{i}_b")(inner)
        for i, width in enumerate((*self.widths[1:], self.channels)):
            rows, columns = 2 * x.shape[1], 2 * x.shape[2]
            border = self.kernel // 2 - 1  # is cut off
            x = up(width, activation=nn.leaky_relu, name=f"conv_up_{i}")(x)
            x = x[:, border : border + rows, border : border + columns]
        return x
