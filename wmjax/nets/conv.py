"""Two-dimensional convolutions that are fast on CPU and on GPU, and their flax modules.

XLA's CPU gradients of strided and transposed convolutions are several times slower than matrix products. On CPU both
operations are therefore one matrix product beside one of two linear maps, each the adjoint of the other:

    gather:   image [B, X, Y, C] -> patches [B, X', Y', k*k*C]      the pixels under each kernel position
    scatter:  patches [B, X', Y', k*k*C] -> image [B, X, Y, C]      overlapping patches are added up

    conv2d           = gather(x) @ kernel         its gradients:  gather(x)^T @ g   scatter(g @ kernel^T)
    conv2d_transpose = scatter(x @ kernel)        its gradients:  x^T @ gather(g)   gather(g) @ kernel^T

`gather` first folds each stride x stride block of pixels into channels (space to depth), so that a kernel position is a few
shifted slices of whole blocks rather than k*k strided ones. Elsewhere XLA's own convolutions are used: they are the fast ones there.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from wmjax.types import Array

_NUMBERS = ("NHWC", "HWIO", "NHWC")
import os

_PIECE_BYTES = int(float(os.environ.get("PB", "4e6")))


def conv2d(x: Array, kernel: Array, stride: int, *, padding: str = "VALID") -> Array:
    """Strided convolution (cross-correlation), as `lax.conv_general_dilated`.

    Args:
        x: [B, X, Y, C].
        kernel: [k, k, C, D], the dtype of x.
        stride: pixels between kernel positions, the same in both directions.
        padding: "VALID", or "SAME" for ceil(X / stride) positions.

    Returns:
        [B, X', Y', D], where X' = (X - k) // stride + 1 if VALID.
    """
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    conv = _matmul_conv if jax.default_backend() == "cpu" else _xla_conv
    return conv(x, kernel, stride)


def conv2d_transpose(x: Array, kernel: Array, stride: int) -> Array:
    """Transposed convolution, as `lax.conv_transpose` with VALID padding.

    Args:
        x: [B, X, Y, C].
        kernel: [k, k, C, D] with k >= stride, the dtype of x. Not flipped, as in `lax.conv_transpose`.
        stride: output pixels for each step of one input pixel.

    Returns:
        [B, (X - 1) * stride + k, (Y - 1) * stride + k, D].
    """
    conv = _matmul_conv_transpose if jax.default_backend() == "cpu" else _xla_conv_transpose
    return conv(x, kernel, stride)


def _xla_conv(x, kernel, stride):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=_NUMBERS)


def _xla_conv_transpose(x, kernel, stride):
    return lax.conv_transpose(x, kernel, (stride, stride), "VALID", dimension_numbers=_NUMBERS)


def _pieces(batch, frame_size, itemsize):
    """Number of equal pieces of a batch whose patches are about `_PIECE_BYTES` each; 1 where the batch is small."""
    most = max(1, _PIECE_BYTES // (frame_size * itemsize))
    return next(n for n in range(-(-batch // most), batch + 1) if batch % n == 0) if batch > most else 1


def _split(x, n):
    return x.reshape(n, x.shape[0] // n, *x.shape[1:])


def _merge(x):
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _gather(x, k, stride):
    """Image [B, X, Y, C] -> patches [B, X', Y', k*k*C], the last axis in the order of the kernel's."""
    batch, rows, cols, channels = x.shape
    out_rows, out_cols = (rows - k) // stride + 1, (cols - k) // stride + 1
    run = stride if k % stride == 0 else 1  # columns copied at once
    step = stride // run
    used = (out_cols - 1) * stride + k
    x = x[:, :, :used].reshape(batch, rows, used // run, run * channels)
    last_row, last_col = stride * (out_rows - 1) + 1, step * (out_cols - 1) + 1
    taps = [x[:, a : a + last_row : stride, b : b + last_col : step] for a in range(k) for b in range(k // run)]
    return jnp.concatenate(taps, axis=-1)


def _scatter(patches, rows, cols, k, stride):
    """The adjoint of `_gather` for images of rows x cols."""
    batch, out_rows, out_cols, width = patches.shape
    s, q, channels = stride, -(-k // stride), width // (k * k)
    h, w = out_rows + q - 1, out_cols + q - 1  # image size in blocks of s x s pixels
    patches = patches.reshape(batch, out_rows, out_cols, k, k, channels).transpose(0, 1, 3, 2, 4, 5)
    zero = jnp.zeros((), patches.dtype)
    blocks = 0
    for i in range(q):
        for j in range(q):
            part = patches[:, :, i * s : (i + 1) * s, :, j * s : (j + 1) * s]
            in_rows, in_cols = (0, s - part.shape[2], 0), (0, s - part.shape[4], 0)  # k need not be a multiple of s
            at_row, at_col = (i, q - 1 - i, 0), (j, q - 1 - j, 0)
            blocks += lax.pad(
                part, zero, ((0, 0, 0), at_row, in_rows, at_col, in_cols, (0, 0, 0))
            )  # [B, h, s, w, s, C]
    image = blocks.reshape(batch, h * s, w * s, channels)
    return lax.pad(image, zero, ((0, 0, 0), (0, rows - h * s, 0), (0, cols - w * s, 0), (0, 0, 0)))


def _outer(a, b):
    """Sum over rows: [..., M], [..., N] -> [M, N]. Rows are flattened first, else XLA copies a transposed operand."""
    return jnp.einsum("rm,rn->mn", a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul_conv(x, kernel, stride):
    k, _, channels, features = kernel.shape
    matrix = kernel.reshape(k * k * channels, features)
    n = _pieces(x.shape[0], x[0].size * k * k // stride**2, x.dtype.itemsize)
    if n == 1:
        return _gather(x, k, stride) @ matrix
    return _merge(lax.map(lambda piece: _gather(piece, k, stride) @ matrix, _split(x, n)))


def _conv_fwd(x, kernel, stride):
    return _matmul_conv(x, kernel, stride), (x, kernel)


def _conv_bwd(stride, saved, g):
    x, kernel = saved
    k, _, channels, features = kernel.shape
    matrix = kernel.reshape(k * k * channels, features).T
    rows, cols = x.shape[1:3]
    n = _pieces(x.shape[0], x[0].size * k * k // stride**2, x.dtype.itemsize)

    def piece(total, x_and_g):
        x, g = x_and_g
        d_x = _scatter(g @ matrix, rows, cols, k, stride)
        return total + _outer(g, _gather(x, k, stride)), d_x

    zero = jnp.zeros((features, k * k * channels), kernel.dtype)
    d_matrix, d_x = lax.scan(piece, zero, (_split(x, n), _split(g, n)))
    return _merge(d_x), d_matrix.T.reshape(kernel.shape)


_matmul_conv.defvjp(_conv_fwd, _conv_bwd)


def _stamp_matrix(kernel):
    """[k, k, C, D] -> [C, k*k*D]: flipped, since an input pixel stamps the flipped kernel."""
    return kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul_conv_transpose(x, kernel, stride):
    k, features = kernel.shape[0], kernel.shape[3]
    matrix = _stamp_matrix(kernel)
    rows, cols = ((size - 1) * stride + k for size in x.shape[1:3])
    n = _pieces(x.shape[0], x.shape[1] * x.shape[2] * k * k * features, x.dtype.itemsize)
    return _merge(lax.map(lambda piece: _scatter(piece @ matrix, rows, cols, k, stride), _split(x, n)))


def _conv_transpose_fwd(x, kernel, stride):
    return _matmul_conv_transpose(x, kernel, stride), (x, kernel)


def _conv_transpose_bwd(stride, saved, g):
    x, kernel = saved
    k, _, channels, features = kernel.shape
    matrix = _stamp_matrix(kernel).T
    n = _pieces(x.shape[0], x.shape[1] * x.shape[2] * k * k * features, x.dtype.itemsize)

    def piece(total, x_and_g):
        x, g = x_and_g
        patches = _gather(g, k, stride)
        return total + _outer(x, patches), patches @ matrix

    zero = jnp.zeros((channels, k * k * features), kernel.dtype)
    d_matrix, d_x = lax.scan(piece, zero, (_split(x, n), _split(g, n)))
    d_kernel = d_matrix.reshape(channels, k, k, features).transpose(1, 2, 0, 3)[::-1, ::-1]
    return _merge(d_x), d_kernel


_matmul_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


class Conv(nn.Module):
    """A strided convolution with bias, `[B, X, Y, C] -> [B, X', Y', features]`.

    dtype: compute dtype (parameters stay float32); None: that of the input.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: str = "VALID"
    kernel_init: Callable[..., Array] = nn.initializers.glorot_uniform()
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        dtype = self.dtype or x.dtype
        y = conv2d(x.astype(dtype), kernel.astype(dtype), self.stride, padding=self.padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + bias.astype(dtype)[None, None, None]


class ConvTranspose(nn.Module):
    """A transposed convolution with bias, `[B, X, Y, C] -> [B, (X - 1) * stride + kernel, ..., features]`."""

    features: int
    kernel: int
    stride: int = 1
    kernel_init: Callable[..., Array] = nn.initializers.glorot_uniform()
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        dtype = self.dtype or x.dtype
        y = conv2d_transpose(x.astype(dtype), kernel.astype(dtype), self.stride)
        return y + bias.astype(dtype)[None, None, None]
