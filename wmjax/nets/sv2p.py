"""The next image from the last one and an action: one time step of SV2P (Babaeizadeh et al. 2018, Finn et al. 2016).

(n): channels at full size, before `filters` are divided; X, Y: sides of the image.

    image -conv 5x5/2-> enc0 (32) -L1-L2- conv 3x3/2-> enc1 (32) -L3-L4- conv 3x3/2-> enc2 (64)
    [enc2, planes of action, reward and noise, X/8 x Y/8] -conv 1x1-L5 (128)
    L5 -up-> enc4 -L6-> [(64), enc1] -up-> enc5 -L7-> [(32), enc0] -up-> enc6

    L5   -> kernels: 5x5, of one image each, that move pixels (CDNA)
    enc6 -> an image drawn from nothing, and masks: what share of each pixel comes from where
    next image = mask0 last image + mask1 drawn image + mask2 moved by kernel 1 + ... + mask10 moved by kernel 9

L is a ConvLSTM and layer norm; up doubles the sides. Ten kernels are predicted and nine used: so the authors' code.
The noise has no posterior here, as in the counts of parameters of the trade-offs study (Babaeizadeh et al. 2020).
"""

from typing import Any

import chex
import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.conv import Conv, ConvTranspose
from wmjax.nets.mlp import glorot
from wmjax.nets.norm import ChannelNorm

FILTERS = (32, 32, 64, 64, 128, 64, 32)  # of the ConvLSTMs (Table 14)
FIRST_FILTERS = 32  # of the first convolution, of every size of the model
MASKS, KERNEL, RELU_SHIFT = 10, 5, 1e-12  # Table 11
SHRINKAGE = 8  # images have sides that are multiples of it


class ConvLSTM(nn.Module):
    """One step: (h, c), [B, X, Y, features] each, and x [B, X, Y, C] -> (h, c).

    One convolution of [x, h] gives the gates i, j, f, o:  c' = sigmoid(f + 1) c + sigmoid(i) tanh(j),
    h' = sigmoid(o) tanh(c'). dtype: of the convolution alone.
    """

    features: int
    kernel: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, state, x):
        h, c = state
        conv = Conv(4 * self.features, self.kernel, padding="SAME", dtype=self.dtype, name="gates")
        gates = conv(jnp.concatenate([x, h], -1))
        i, j, f, o = jnp.split(gates.astype(c.dtype), 4, axis=-1)
        c = nn.sigmoid(f + 1.0) * c + nn.sigmoid(i) * jnp.tanh(j)
        return nn.sigmoid(o) * jnp.tanh(c), c


class Upsample(nn.Module):
    """[B, X, Y, C] -> [B, 2 X, 2 Y, C]: a transposed convolution without its first row and column, and a relu."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        return nn.relu(ConvTranspose(x.shape[-1], 3, 2, dtype=self.dtype)(x)[:, 1:, 1:])


class Plane(nn.Module):
    """A vector [B, N] as one channel of a grid like [B, X, Y, C]: [B, X, Y, 1]."""

    @nn.compact
    def __call__(self, x, grid):
        _, rows, columns, _ = grid.shape
        return nn.Dense(rows * columns, kernel_init=glorot)(x).reshape(-1, rows, columns, 1)


class SV2P(nn.Module):
    """One step, as drawn in the docstring of this module.

    filters: of the seven ConvLSTMs. dtype: of convolutions; None: that of their inputs.
    """

    filters: tuple[int, ...] = FILTERS
    dtype: Any = None

    @nn.compact
    def __call__(self, cells, image, action, reward, noise):
        """(cells, next image, activations) after an action.

        Args: cells: (h, c) of each ConvLSTM, as `cell_shapes`; image: [B, X, Y, C] in [0, 1]; action: [B, A];
          reward: [B], or None; noise: [B, X / 8, Y / 8, any number of channels].
        Returns: cells as given; image as given; enc0, enc1, enc4, enc5 and enc6, [B, ...] each.
        """
        stepped = []

        def cell(x):
            state = ConvLSTM(self.filters[len(stepped)], dtype=self.dtype)(cells[len(stepped)], x)
            stepped.append(state)
            return ChannelNorm()(state[0])

        def halve(features, kernel, x):
            return nn.relu(Conv(features, kernel, 2, "SAME", dtype=self.dtype)(x))

        enc0 = ChannelNorm()(halve(FIRST_FILTERS, 5, image))
        enc1 = halve(self.filters[1], 3, cell(cell(enc0)))
        enc2 = halve(self.filters[3], 3, cell(cell(enc1)))
        planes = [Plane()(action, enc2)] + ([] if reward is None else [Plane()(reward[:, None], enc2)])
        mix = nn.Dense(self.filters[3], kernel_init=glorot, dtype=self.dtype)
        bottom = cell(nn.relu(mix(jnp.concatenate([enc2, *planes, noise], -1))))
        enc4 = Upsample(self.dtype)(bottom)
        enc5 = Upsample(self.dtype)(jnp.concatenate([cell(enc4), enc1], -1))
        top = jnp.concatenate([cell(enc5), enc0], -1)
        enc6 = ChannelNorm()(Upsample(self.dtype)(top))

        drawn = nn.sigmoid(nn.Dense(image.shape[-1], kernel_init=glorot)(enc6))
        masks = nn.softmax(nn.Dense(MASKS + 1, kernel_init=glorot)(enc6))
        kernels = nn.Dense(KERNEL**2 * MASKS, kernel_init=glorot)(bottom.reshape(bottom.shape[0], -1))
        image = compose(image, drawn, normalised_kernels(kernels), masks)
        return tuple(stepped), image, (enc0, enc1, enc4, enc5, enc6)


def cell_shapes(image_shape, filters=FILTERS):
    """Shapes (X', Y', channels) of h and of c of each ConvLSTM, for images (X, Y, C)."""
    return [(image_shape[0] // s, image_shape[1] // s, n) for s, n in zip((2, 2, 4, 4, 8, 4, 2), filters, strict=True)]


def normalised_kernels(outputs):
    """[B, k * k * MASKS] -> [B, k * k, MASKS]: kernels of numbers above 0 with sum 1."""
    kernels = nn.relu(outputs - RELU_SHIFT).reshape(outputs.shape[0], -1, MASKS) + RELU_SHIFT
    return kernels / kernels.sum(axis=1, keepdims=True)


def compose(image, drawn, kernels, masks):
    """The next image, [B, X, Y, C]: shares of the last one, the drawn one, and those that the kernels make.

    Args: image, drawn: [B, X, Y, C]; kernels: [B, k * k, MASKS]; masks: [B, X, Y, MASKS + 1] with sums of 1.
    """
    here, painted, moved = jnp.split(masks, (1, 2), axis=-1)
    return here * image + painted * drawn + advect(image, kernels[..., : moved.shape[-1]], moved)


def advect(image, kernels, masks):
    """The sum over kernels n of masks[..., n] * (image convolved with kernels[..., n]), with zeros beyond the edges.

    Each pixel's kernels are first summed into one, weighted by its masks, so that the image is convolved only once.

    Args: image: [B, X, Y, C]; kernels: [B, k * k, N]; masks: [B, X, Y, N]. Returns: [B, X, Y, C].
    """
    chex.assert_rank([image, kernels, masks], [4, 3, 4])
    _, rows, columns, _ = image.shape
    side = round(kernels.shape[1] ** 0.5)
    per_pixel = jnp.moveaxis(jnp.einsum("bxyn,bkn->bxyk", masks, kernels), -1, 0)  # [k * k, B, X, Y]
    edge = (side // 2, side // 2)
    padded = jnp.pad(image, ((0, 0), edge, edge, (0, 0)))
    moved = [padded[:, i : i + rows, j : j + columns] for i in range(side) for j in range(side)]
    shares = jnp.split(per_pixel, side * side)  # whose gradient is one concatenation; that of an index is padded
    return sum(share[0, ..., None] * image for share, image in zip(shares, moved, strict=True))
