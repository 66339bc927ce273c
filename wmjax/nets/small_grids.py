"""Padded convolutions of stride 1 of grids that are hardly larger than the kernel, as products for a CPU.

    y = inverse @ (forward @ x  *  of_kernel @ kernel)     *: a product over channels for each of N frequencies

The three matrices are constant. Directly, a 5 x 5 kernel on a 6 x 6 grid takes 576 products for each pair of channels
(900 if padding is multiplied too). By the discrete Fourier transform on 8 x 8 points it takes N = 94: there are 34
different frequencies, 4 of them real, and a product of two complex numbers takes three real ones.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A grid is small up to so many kernels high, while the patches of one row of the kernel have at most so many numbers.
_SMALL_GRID, _GRID_PATCHES = 2, 2**23
# Fewer images do not pay for the kernel's transform, which is N / (k * k) times as large: each row of the kernel has a
# product of its own, which leaves out rows of padding (2 cores, 5 x 5 kernels, 6 x 6 grids, 128 channels).
_FEW_IMAGES = 16


def outer(a, b):
    """Sum over rows: [..., M], [..., N] -> [M, N]. Rows are flattened first, else XLA copies a transposed operand."""
    return jnp.einsum("rm,rn->mn", a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]))


def is_small_grid(shape, k, stride):
    """Whether a padded convolution of images [B, X, Y, C] is one of small grids."""
    return (
        stride == 1 and k % 2 == 1 and 1 < k and shape[1] <= _SMALL_GRID * k and math.prod(shape) * k <= _GRID_PATCHES
    )


def column_patches(x, k):
    """[B, X, Y, C] -> [B, X, Y, k*C]: the pixels left and right of each, zeros beyond the edges."""
    x = jnp.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (0, 0)))
    return jnp.concatenate([x[:, :, j : j + x.shape[2] - k + 1] for j in range(k)], axis=-1)


@functools.cache
def transforms(rows, cols, k):
    """(forward [N, rows * cols], of_kernel [N, k * k], inverse [rows * cols, N]): numpy, float32.

    A grid beside k // 2 rows and columns of zeros is periodic without meeting itself. Of the frequencies (u, v) and
    (-u, -v), whose values are conjugate, the first is kept. With a + ib for the transform at a frequency, the rows of
    forward and of_kernel are: a of all frequencies, then b and then a + b of those that are not real. If A, B and S are
    the products of the three kinds of rows, the complex product is A - B + i (S - A - B).
    """
    half = k // 2
    size = rows + half, cols + half
    everything = np.stack(np.divmod(np.arange(math.prod(size)), size[1]), axis=-1)  # [*, 2]
    conjugate = -everything % size
    number, other = (frequency @ (size[1], 1) for frequency in (everything, conjugate))
    kept = everything[number <= other]
    paired = (number < other)[number <= other]

    def waves(row, col):
        angle = 2 * np.pi * (np.outer(kept[:, 0] / size[0], row) + np.outer(kept[:, 1] / size[1], col))
        return np.cos(angle), -np.sin(angle)  # real and imaginary part of the transform, [frequencies, positions]

    def three(real, imaginary):
        return np.concatenate([real, imaginary[paired], (real + imaginary)[paired]]).astype(np.float32)

    pixels = waves(*np.divmod(np.arange(rows * cols), cols))
    kernel = waves(*(half - place for place in np.divmod(np.arange(k * k), k)))  # a pixel stamps the flipped kernel
    weight = np.where(paired, 2, 1)[:, None] / math.prod(size)
    real, imaginary = (weight * wave for wave in pixels)
    inverse = [np.where(paired[:, None], real - imaginary, real), (-real - imaginary)[paired], imaginary[paired]]
    return three(*pixels), three(*kernel), np.concatenate(inverse).T.astype(np.float32)


def _product(x, kernel):
    """[B, X, Y, C] and [k, k, C, D] -> the padded convolution [B, X, Y, D], without a bias."""
    batch, rows, cols, channels = x.shape
    k, _, _, features = kernel.shape
    if batch < _FEW_IMAGES:
        patches, zero, total = column_patches(x, k), jnp.zeros((), x.dtype), 0
        for part, (result, image) in zip(kernel, _by_kernel_row(rows, k), strict=True):
            edges = (result.start, rows - result.stop, 0)
            met = patches[:, image] @ part.reshape(k * channels, features)
            total += lax.pad(met, zero, ((0, 0, 0), edges, (0, 0, 0), (0, 0, 0)))
        return total
    forward, of_kernel, inverse = transforms(rows, cols, k)
    kernel_waves = (of_kernel @ kernel.reshape(k * k, -1)).reshape(-1, channels, features)
    products = (_waves(forward, x) @ kernel_waves).reshape(-1, batch * features)
    y = jnp.swapaxes((inverse @ products).reshape(rows * cols, batch, features), 0, 1)
    return y.reshape(batch, rows, cols, features).astype(x.dtype)


def _waves(matrix, x):
    """matrix [N, X * Y] @ images [B, X, Y, C] -> [N, B, C]."""
    batch, rows, cols, channels = x.shape
    pixels = jnp.swapaxes(x.reshape(batch, rows * cols, channels), 0, 1)
    return (matrix @ pixels.reshape(rows * cols, batch * channels)).reshape(-1, batch, channels)


def _kernel_gradient(x, g, k):
    """[B, X, Y, C] and [B, X, Y, D], of the result -> the kernel's gradient [k, k, C, D]."""
    shape = k, k, x.shape[3], g.shape[3]
    if x.shape[0] < _FEW_IMAGES:
        patches, rows = column_patches(x, k), _by_kernel_row(x.shape[1], k)
        return jnp.stack([outer(patches[:, image], g[:, result]) for result, image in rows]).reshape(shape)
    forward, of_kernel, inverse = transforms(*x.shape[1:3], k)
    products = jnp.swapaxes(_waves(forward, x), 1, 2) @ _waves(inverse.T, g)  # [N, C, D]
    return (of_kernel.T @ products.reshape(len(forward), -1)).reshape(shape).astype(x.dtype)


def _by_kernel_row(rows, k):
    """For each row of a kernel: the rows of the result, and of the image, that it meets: two slices of one length.

    Both are empty for a row that meets nothing: on one row of an image a 5 x 5 kernel has four of them.
    """
    found = []
    for shift in range(-(k // 2), k // 2 + 1):
        result, image = min(rows, max(0, -shift)), min(rows, max(0, shift))
        met = max(0, rows - abs(shift))
        found.append((slice(result, result + met), slice(image, image + met)))
    return found


@jax.custom_vjp
def grid_conv(x, kernel, bias):
    """Padded convolution of stride 1, [B, X, Y, C] and [k, k, C, D], k odd -> [B, X, Y, D]."""
    return _product(x, kernel) + bias[None, None, None]


def _grid_fwd(x, kernel, bias):
    return grid_conv(x, kernel, bias), (x, kernel, bias)


def _grid_bwd(saved, g):
    x, kernel, bias = saved
    d_x = _product(g, kernel[::-1, ::-1].swapaxes(2, 3))
    return d_x, _kernel_gradient(x, g, kernel.shape[0]), g.sum((0, 1, 2)).astype(bias.dtype)


grid_conv.defvjp(_grid_fwd, _grid_bwd)
