"""Two-dimensional convolutions that are fast on CPU and on GPU, and their flax modules.

XLA's CPU gradients of strided and transposed convolutions are several times slower than matrix products. On CPU both
operations are therefore one matrix product beside one of two linear maps, each the adjoint of the other:

    gather:   image [B, X, Y, C] -> patches [B, X', Y', k*k*C]      the pixels under each kernel position
    scatter:  patches [B, X', Y', k*k*C] -> image [B, X, Y, C]      overlapping patches are added up

    conv2d           = gather(x) @ kernel         its gradients:  gather(x)^T @ g   scatter(g @ kernel^T)
    conv2d_transpose = scatter(x @ kernel)        its gradients:  x^T @ gather(g)   gather(g) @ kernel^T

A padded convolution of stride 1 copies less: patches of k*C, one row of pixels each, whose products with every row of
the kernel are added up; and its gradients need one map alone, of g: x^T @ gather(g) and gather(g) @ flipped kernel.
Both maps see the image as blocks of stride x stride pixels: a kernel of k = q * stride is q x q shifted slices of it.
Patches are several times larger than images: a large batch is worked through in pieces whose patches stay in the cache.
Small grids have a form of their own: `wmjax.nets.small_grids`. Other platforms use XLA's own convolutions, which are
the fast ones there.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from wmjax import backend
from wmjax.nets.small_grids import column_patches, grid_conv, is_small_grid, outer
from wmjax.types import Array

_NUMBERS = ("NHWC", "HWIO", "NHWC")
# Not sensitive: within 10% from 4 to 16 MiB on 2 cores with 32 MiB of shared cache.
_PIECE_BYTES = 8 * 2**20
# Up to so many times the input's channels, patches of the result's gradient are faster to copy than those of the input
# and their scattering (2 cores, 3 x 3 and 5 x 5 kernels, 4 to 128 channels).
_WIDE = 3
# Below this many channels patches are copied s pixels at a time: XLA's copies of a few bytes are slow.
_FEW_CHANNELS = 16

# Uniform in +-1 / sqrt(inputs): what the layers of some papers' frameworks start from.
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def identity(x):
    """The activation of a layer that has none."""
    return x


def conv2d(
    x: Array,
    kernel: Array,
    stride: int,
    *,
    padding: str = "VALID",
    bias: Array | None = None,
    activation: Callable[[Array], Array] = identity,
) -> Array:
    """Strided convolution (cross-correlation), as `lax.conv_general_dilated`, of `activation(x)`.

    Args:
        x: [B, X, Y, C].
        kernel: [k, k, C, D], the dtype of x.
        stride: pixels between kernel positions, the same in both directions.
        padding: "VALID", or "SAME" for ceil(X / stride) positions.
        bias: [D], added to the result; None: none.
        activation: elementwise, of the INPUT: so the layer before keeps one array rather than two for the gradient.

    Returns:
        [B, X', Y', D], where X' = (X - k) // stride + 1 if VALID.

    Raises:
        ValueError: VALID, and the image is smaller than the kernel.
    """
    _check(x, kernel)
    if padding == "VALID" and min(x.shape[1:3]) < kernel.shape[0]:
        raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]} is smaller than the kernel {kernel.shape[0]}")
    bias = jnp.zeros(kernel.shape[3:], kernel.dtype) if bias is None else bias
    if padding == "SAME" and backend.is_cpu() and is_small_grid(x.shape, kernel.shape[0], stride):
        return grid_conv(activation(x), kernel, bias)
    if padding != "VALID":
        pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
        odd, narrow = kernel.shape[0] % 2 == 1, kernel.shape[3] <= _WIDE * kernel.shape[2]
        if stride == 1 and odd and narrow and backend.is_cpu():
            return _same_conv(x, kernel, bias, activation)
        x, activation = jnp.pad(activation(x), ((0, 0), *pads, (0, 0))), identity
    conv = _matmul_conv if backend.is_cpu() else _xla_conv
    return conv(x, kernel, bias, stride, activation)


def conv2d_transpose(
    x: Array,
    kernel: Array,
    stride: int,
    *,
    bias: Array | None = None,
    activation: Callable[[Array], Array] = identity,
) -> Array:
    """Transposed convolution, as `lax.conv_transpose` with VALID padding, of `activation(x)`.

    Args:
        x: [B, X, Y, C].
        kernel: [k, k, C, D] with k >= stride, the dtype of x. Not flipped, as in `lax.conv_transpose`.
        stride: output pixels for each step of one input pixel.
        bias, activation: as in `conv2d`.

    Returns:
        [B, (X - 1) * stride + k, (Y - 1) * stride + k, D].

    Raises:
        ValueError: k < stride, where some output pixels would belong to no input pixel.
    """
    _check(x, kernel)
    if kernel.shape[0] < stride:
        raise ValueError(f"kernel {kernel.shape[0]} of a transposed convolution is smaller than its stride {stride}")
    bias = jnp.zeros(kernel.shape[3:], kernel.dtype) if bias is None else bias
    conv = _matmul_conv_transpose if backend.is_cpu() else _xla_conv_transpose
    return conv(x, kernel, bias, stride, activation)


def _check(x, kernel):
    chex.assert_rank([x, kernel], 4)
    chex.assert_shape(kernel, (kernel.shape[1], None, x.shape[3], None))


def _xla_conv(x, kernel, bias, stride, activation):
    y = lax.conv_general_dilated(activation(x), kernel, (stride, stride), "VALID", dimension_numbers=_NUMBERS)
    return y + bias[None, None, None]


def _xla_conv_transpose(x, kernel, bias, stride, activation):
    y = lax.conv_transpose(activation(x), kernel, (stride, stride), "VALID", dimension_numbers=_NUMBERS)
    return y + bias[None, None, None]


def _pieces(batch, patch_shape, itemsize):
    """Number of equal pieces of a batch such that the patches of one take about `_PIECE_BYTES`."""
    frames = max(1, _PIECE_BYTES // (math.prod(patch_shape) * itemsize))
    least = max(1, -(-batch // frames))
    n = next((n for n in range(least, batch + 1) if batch % n == 0), 1)
    return n if n <= 4 * least else 1  # a batch size with no fitting divisor: one large piece beats many tiny ones


def _split(x, n):
    return x.reshape(n, x.shape[0] // n, *x.shape[1:])


def _merge(x):
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _apart(copy, x, *sizes):
    """copy(x, *sizes), not inlined: fused with what computes x, XLA would recompute a pixel for each of its copies.

    bfloat16 is copied as integers: XLA's CPU compiler would make a float32 of each number and back.
    """
    as_integers = x.dtype == jnp.bfloat16
    pixels = lax.bitcast_convert_type(x, jnp.uint16) if as_integers else x
    with set_xla_metadata(inlineable="false"):
        copies = jax.jit(copy, static_argnums=tuple(range(1, 1 + len(sizes))))(pixels, *sizes)
    return lax.bitcast_convert_type(copies, x.dtype) if as_integers else copies


def _gather(x, k, stride):
    return _apart(_copy_patches, x, k, stride)


def _copy_patches(x, k, stride):
    """Image [B, X, Y, C] -> patches [B, X', Y', k*k*C], the last axis in the order of the kernel's."""
    batch, rows, cols, channels = x.shape
    s, q = stride, -(-k // stride)
    out_rows, out_cols = (rows - k) // s + 1, (cols - k) // s + 1
    h, w = out_rows + q - 1, out_cols + q - 1  # image size in blocks of s x s pixels
    run = s if channels < _FEW_CHANNELS and k % s == 0 else 1  # pixels copied at once
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, h * s - rows, 0), (0, w * s - cols, 0), (0, 0, 0)))
    x = x.reshape(batch, h, s, w, s // run, run * channels)
    bands = []
    for i in range(q):
        band = x[:, i : i + out_rows, : k - i * s].transpose(0, 1, 3, 2, 4, 5)  # [B, X', w, s, s / run, run * C]
        parts = [band[:, :, j : j + out_cols, :, : (k - j * s) // run] for j in range(q)]
        bands.append(jnp.concatenate(parts, axis=4))  # [B, X', Y', s, k / run, run * C]
    return jnp.concatenate(bands, axis=3).reshape(batch, out_rows, out_cols, k * k * channels)


def _wide_product(x, matrix):
    """x @ matrix in at least float32, to add overlapping products: in bfloat16 each sum rounds, and slowly."""
    return jnp.matmul(x, matrix, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))


def _scatter(patches, rows, cols, k, stride):
    """The adjoint of `_gather` for images of rows x cols."""
    batch, out_rows, out_cols, width = patches.shape
    s, q, channels = stride, -(-k // stride), width // (k * k)
    h, w = out_rows + q - 1, out_cols + q - 1
    patches = patches.reshape(batch, out_rows, out_cols, k, k, channels).transpose(0, 1, 3, 2, 4, 5)
    zero = jnp.zeros((), patches.dtype)
    blocks = 0
    for i in range(q):
        for j in range(q):
            part = patches[:, :, i * s : (i + 1) * s, :, j * s : (j + 1) * s]
            in_row, in_col = (0, s - part.shape[2], 0), (0, s - part.shape[4], 0)  # k need not be a multiple of s
            at_row, at_col = (i, q - 1 - i, 0), (j, q - 1 - j, 0)
            blocks += lax.pad(part, zero, ((0, 0, 0), at_row, in_row, at_col, in_col, (0, 0, 0)))  # [B, h, s, w, s, C]
    image = blocks.reshape(batch, h * s, w * s, channels)
    return lax.pad(image, zero, ((0, 0, 0), (0, rows - h * s, 0), (0, cols - w * s, 0), (0, 0, 0)))


def _in_pieces(function, n, x):
    """Maps [B, ...] -> [B, ...] piece by piece."""
    return _merge(lax.map(function, _split(x, n)))


def _gradients_in_pieces(function, n, params, x, g):
    """function(x piece, g piece) -> (d_params, d_x piece); d_params, shaped as `params`, are summed over the pieces."""

    def step(total, piece):
        d_params, d_x = function(*piece)
        return jax.tree.map(jnp.add, total, d_params), d_x

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
    total, d_x = lax.scan(step, zeros, (_split(x, n), _split(g, n)))
    return jax.tree.map(lambda t, p: t.astype(p.dtype), total, params), _merge(d_x)


def _conv_pieces(x, kernel, stride):
    k, _, channels, _ = kernel.shape
    rows, cols = ((size - k) // stride + 1 for size in x.shape[1:3])
    return _pieces(x.shape[0], (rows, cols, k * k * channels), x.dtype.itemsize)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _matmul_conv(x, kernel, bias, stride, activation):
    k, _, channels, features = kernel.shape
    matrix = kernel.reshape(k * k * channels, features)

    def piece(x):
        return _gather(activation(x), k, stride) @ matrix + bias[None, None, None]

    return _in_pieces(piece, _conv_pieces(x, kernel, stride), x)


def _conv_fwd(x, kernel, bias, stride, activation):
    return _matmul_conv(x, kernel, bias, stride, activation), (x, kernel, bias)


def _conv_bwd(stride, activation, saved, g):
    x, kernel, bias = saved
    k, _, channels, features = kernel.shape
    matrix = kernel.reshape(k * k * channels, features).T  # [features, k*k*C]
    rows, cols = x.shape[1:3]

    def piece(x, g):
        x, activation_vjp = jax.vjp(activation, x)
        d_x = activation_vjp(_scatter(_wide_product(g, matrix), rows, cols, k, stride).astype(g.dtype))[0]
        return (outer(g, _gather(x, k, stride)), g.sum((0, 1, 2))), d_x

    (d_matrix, d_bias), d_x = _gradients_in_pieces(piece, _conv_pieces(x, kernel, stride), (matrix, bias), x, g)
    return d_x, d_matrix.T.reshape(kernel.shape), d_bias


_matmul_conv.defvjp(_conv_fwd, _conv_bwd)


def _add_rows(products, k):
    """[B, X, Y, k*D], products of each pixel with every row of a kernel -> [B, X, Y, D]: sums of what meets."""
    total, zero = 0, jnp.zeros((), products.dtype)
    for row, product in enumerate(jnp.split(products, k, axis=-1)):
        shift = k // 2 - row  # downwards
        total += lax.pad(product, zero, ((0, 0, 0), (shift, -shift, 0), (0, 0, 0), (0, 0, 0)))
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _same_conv(x, kernel, bias, activation):
    """Padded convolution of stride 1 with an odd kernel."""
    k, _, channels, features = kernel.shape
    matrix = kernel.transpose(1, 2, 0, 3).reshape(k * channels, k * features)

    def piece(x):
        image = _add_rows(_wide_product(_apart(column_patches, activation(x), k), matrix), k)
        return (image + bias[None, None, None]).astype(x.dtype)

    return _in_pieces(piece, _pieces(x.shape[0], (*x.shape[1:3], sum(matrix.shape)), x.dtype.itemsize), x)


def _same_fwd(x, kernel, bias, activation):
    return _same_conv(x, kernel, bias, activation), (x, kernel, bias)


def _same_bwd(activation, saved, g):
    """Those of a transposed convolution whose edges are not cut off."""
    edge = (saved[1].shape[0] // 2,) * 2
    return _conv_transpose_bwd(1, activation, saved, jnp.pad(g, ((0, 0), edge, edge, (0, 0))))


_same_conv.defvjp(_same_fwd, _same_bwd)


def _stamp_matrix(kernel):
    """[k, k, C, D] -> [C, k*k*D]: flipped, since an input pixel stamps the flipped kernel."""
    return kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


def _transpose_pieces(x, matrix):
    return _pieces(x.shape[0], (*x.shape[1:3], matrix.shape[1]), x.dtype.itemsize)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _matmul_conv_transpose(x, kernel, bias, stride, activation):
    k, matrix = kernel.shape[0], _stamp_matrix(kernel)
    rows, cols = ((size - 1) * stride + k for size in x.shape[1:3])

    def piece(x):
        image = _scatter(_wide_product(activation(x), matrix), rows, cols, k, stride)
        return (image + bias[None, None, None]).astype(x.dtype)

    return _in_pieces(piece, _transpose_pieces(x, matrix), x)


def _conv_transpose_fwd(x, kernel, bias, stride, activation):
    return _matmul_conv_transpose(x, kernel, bias, stride, activation), (x, kernel, bias)


def _conv_transpose_bwd(stride, activation, saved, g):
    x, kernel, bias = saved
    k, _, channels, features = kernel.shape
    matrix = _stamp_matrix(kernel)

    def piece(x, g):
        x, activation_vjp = jax.vjp(activation, x)
        patches = _gather(g, k, stride)
        return (outer(x, patches), g.sum((0, 1, 2))), activation_vjp(patches @ matrix.T)[0]

    (d_matrix, d_bias), d_x = _gradients_in_pieces(piece, _transpose_pieces(x, matrix), (matrix, bias), x, g)
    d_kernel = d_matrix.reshape(channels, k, k, features).transpose(1, 2, 0, 3)[::-1, ::-1]
    return d_x, d_kernel, d_bias


_matmul_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


class Conv(nn.Module):
    """A strided convolution with bias: `[B, X, Y, C] -> [B, X', Y', features]`, after an activation of its INPUT.

    dtype: compute dtype (parameters stay float32); None: that of the input.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: str = "VALID"
    activation: Callable[[Array], Array] = identity
    kernel_init: Callable[..., Array] = nn.initializers.glorot_uniform()
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        dtype = self.dtype or x.dtype
        kernel = self.param("kernel", self.kernel_init, shape).astype(dtype)
        bias = (
            self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(dtype) if self.use_bias else None
        )
        x = x.astype(dtype)
        return conv2d(x, kernel, self.stride, padding=self.padding, bias=bias, activation=self.activation)


class ConvTranspose(nn.Module):
    """A transposed convolution with bias, [B, X, Y, C] -> [B, (X - 1) * stride + kernel, ..., features], as `Conv`."""

    features: int
    kernel: int
    stride: int = 1
    activation: Callable[[Array], Array] = identity
    kernel_init: Callable[..., Array] = nn.initializers.glorot_uniform()
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        dtype = self.dtype or x.dtype
        kernel = self.param("kernel", self.kernel_init, shape).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(dtype)
        return conv2d_transpose(x.astype(dtype), kernel, self.stride, bias=bias, activation=self.activation)
