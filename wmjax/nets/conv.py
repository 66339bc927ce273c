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


def _gather(x, k, stride):
    """[B, X, Y, C] -> [B, X', Y', q, q, s, s, C], where q = ceil(k / s) blocks cover the kernel."""
    batch, rows, cols, channels = x.shape
    s, q = stride, -(-k // stride)
    out_rows, out_cols = (rows - k) // s + 1, (cols - k) // s + 1
    h, w = out_rows + q - 1, out_cols + q - 1
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, h * s - rows, 0), (0, w * s - cols, 0), (0, 0, 0)))
    x = x.reshape(batch, h, s, w, s, channels).transpose(0, 1, 3, 2, 4, 5)  # [B, h, w, s, s, C]
    x = x.reshape(batch, h, w, s * s * channels)
    shifts = [x[:, i : i + out_rows, j : j + out_cols] for i in range(q) for j in range(q)]
    return jnp.concatenate(shifts, axis=-1)


def _scatter(patches, rows, cols, k, stride):
    """The adjoint of `_gather` for an image of rows x cols."""
    batch, out_rows, out_cols, width = patches.shape
    s, q = stride, -(-k // stride)
    h, w = out_rows + q - 1, out_cols + q - 1
    n = width // (q * q)
    zero = jnp.zeros((), patches.dtype)
    total = 0
    for i in range(q):
        for j in range(q):
            part = patches[..., (i * q + j) * n : (i * q + j + 1) * n]
            total += lax.pad(part, zero, ((0, 0, 0), (i, q - 1 - i, 0), (j, q - 1 - j, 0), (0, 0, 0)))
    x = total.reshape(batch, h, w, s, s, n // (s * s)).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, h * s, w * s, n // (s * s))
    return lax.pad(x, zero, ((0, 0, 0), (0, rows - h * s, 0), (0, cols - w * s, 0), (0, 0, 0)))


def _as_matrix(kernel, stride):
    """[k, k, C, D] -> [q*q*s*s*C, D] in the order of `_gather`'s last axis."""
    k, _, c, d = kernel.shape
    s, q = stride, -(-k // stride)
    kernel = jnp.pad(kernel, ((0, q * s - k), (0, q * s - k), (0, 0), (0, 0)))
    return kernel.reshape(q, s, q, s, c, d).transpose(0, 2, 1, 3, 4, 5).reshape(q * q * s * s * c, d)


def _as_kernel(matrix, k, stride):
    s, q = stride, -(-k // stride)
    d = matrix.shape[-1]
    kernel = matrix.reshape(q, q, s, s, -1, d).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(q * s, q * s, -1, d)[:k, :k]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul_conv(x, kernel, stride):
    return _gather(x, kernel.shape[0], stride) @ _as_matrix(kernel, stride)


def _conv_fwd(x, kernel, stride):
    return _matmul_conv(x, kernel, stride), (x, kernel)


def _conv_bwd(stride, saved, g):
    x, kernel = saved
    k = kernel.shape[0]
    d_patches = g @ _as_matrix(kernel, stride).T
    d_x = _scatter(d_patches, *x.shape[1:3], k, stride)
    d_matrix = jnp.einsum("bxyp,bxyd->pd", _gather(x, k, stride), g)
    return d_x, _as_kernel(d_matrix, k, stride)


_matmul_conv.defvjp(_conv_fwd, _conv_bwd)


def _stamp_matrix(kernel, stride):
    """[k, k, C, D] -> [q*q*s*s*D, C]: flipped, since an input pixel stamps the flipped kernel."""
    return _as_matrix(kernel[::-1, ::-1].swapaxes(2, 3), stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul_conv_transpose(x, kernel, stride):
    k = kernel.shape[0]
    rows, cols = ((size - 1) * stride + k for size in x.shape[1:3])
    return _scatter(x @ _stamp_matrix(kernel, stride).T, rows, cols, k, stride)


def _conv_transpose_fwd(x, kernel, stride):
    return _matmul_conv_transpose(x, kernel, stride), (x, kernel)


def _conv_transpose_bwd(stride, saved, g):
    x, kernel = saved
    k = kernel.shape[0]
    g_patches = _gather(g, k, stride)
    d_x = g_patches @ _stamp_matrix(kernel, stride)
    d_matrix = jnp.einsum("bxyp,bxyc->pc", g_patches, x)
    return d_x, _as_kernel(d_matrix, k, stride).swapaxes(2, 3)[::-1, ::-1]


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
