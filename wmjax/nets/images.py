"""Image encoder and decoder of PlaNet (Hafner et al. 2019, appendix A), for square images of several sizes.

encoder (k4 s2, valid)   64 -> 31 -> 14 -> 6 -> 2      32 -> 15 -> 6 -> 2      16 -> 7 -> 2
decoder (stride 2)       1 -> 5 -> 13 -> 30 -> 64      1 -> 5 -> 14 -> 32      1 -> 6 -> 16
"""

from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn

from wmjax.nets.conv import Conv, ConvTranspose
from wmjax.types import Array, UsageError

# Image size -> kernels of the stride-2 transposed convolutions that reach exactly it from 1x1.
# 64: the paper's. The others are not in the paper: the same pattern, 6 in the last two layers.
DECODER_KERNELS = {16: (6, 6), 32: (5, 6, 6), 64: (5, 5, 6, 6), 96: (3, 5, 5, 6, 6), 128: (5, 5, 5, 6, 6)}


def decoder_kernels(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Kernels of the decoder's layers for images (X, Y, C); raises UsageError if X, Y is not offered."""
    rows, cols = image_shape[:2]
    if rows != cols or rows not in DECODER_KERNELS:
        raise UsageError(
            f"image size {rows}x{cols} has no decoder: use square images of {sorted(DECODER_KERNELS)} pixels"
        )
    return DECODER_KERNELS[rows]


def encoder_features(
    image_shape: tuple[int, ...], widths: tuple[int, ...] = (32, 64, 128, 256), *, kernel: int = 4, stride: int = 2
) -> int:
    """Length of the embedding of one image (X, Y, C); raises UsageError if it is too small for the layers."""
    rows, cols = image_shape[:2]
    for _ in widths:
        rows, cols = (rows - kernel) // stride + 1, (cols - kernel) // stride + 1
    if min(rows, cols) < 1:
        raise UsageError(
            f"image size {image_shape[0]}x{image_shape[1]} is too small for {len(widths)} encoder layers "
            f"of kernel {kernel} and stride {stride}: use fewer widths or larger images"
        )
    return rows * cols * widths[-1]


class ImageEncoder(nn.Module):
    """Convolutions with an activation after each: `[B, X, Y, C] -> [B, F]`, F = 1024 for 64x64 images.

    dtype: compute dtype (parameters stay float32); None: that of the input.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    kernel: int = 4
    stride: int = 2
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        chex.assert_rank(x, 4)
        features = encoder_features(x.shape[1:], self.widths, kernel=self.kernel, stride=self.stride)
        x = Conv(self.widths[0], self.kernel, self.stride, dtype=self.dtype)(x)
        for width in self.widths[1:]:
            x = Conv(width, self.kernel, self.stride, activation=self.activation, dtype=self.dtype)(x)
        return self.activation(x).reshape(x.shape[0], features)


class ImageDecoder(nn.Module):
    """A linear layer to 1x1 and transposed convolutions of stride 2: features `[B, F]` -> image mean `[B, X, Y, C]`.

    image_shape: (X, Y, C), a size in DECODER_KERNELS.
    widths: channels after each transposed convolution but the last, one fewer than the size has kernels.
    hidden: outputs of the linear layer.
    dtype: compute dtype (parameters stay float32); None: that of the input.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...] = (128, 64, 32)
    hidden: int = 1024
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, features):
        chex.assert_rank(features, 2)
        kernels = decoder_kernels(self.image_shape)
        if len(self.widths) != len(kernels) - 1:
            raise UsageError(
                f"decoder widths {self.widths} do not fit image size {self.image_shape[0]}: "
                f"give {len(kernels) - 1} widths"
            )
        dtype = self.dtype or features.dtype
        x = nn.Dense(self.hidden, kernel_init=nn.initializers.glorot_uniform(), dtype=dtype)(features)
        x = x[:, None, None]  # [B, 1, 1, hidden]
        widths = (*self.widths, self.image_shape[2])
        x = ConvTranspose(widths[0], kernels[0], 2, dtype=self.dtype)(x)  # the linear layer has no activation
        for width, kernel in zip(widths[1:], kernels[1:], strict=True):
            x = ConvTranspose(width, kernel, 2, activation=self.activation, dtype=self.dtype)(x)
        return x
