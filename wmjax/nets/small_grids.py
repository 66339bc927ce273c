"""Padded convolutions of stride 1 of grids that are hardly larger than the kernel, as matrix products for a CPU.

A fifth of a padded 5 x 5 convolution of a 6 x 6 grid would multiply rows of padding: here every row of the kernel is a
product of its own, with the rows of the image that it meets, or in large batches every row of the image with the rows
of the kernel.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

# A grid is small up to so many kernels high, while the patches of one row of the kernel have at most so many numbers.
_SMALL_GRID, _GRID_PATCHES = 2, 2**23
# Pixels in one row of all images of a batch: so many are many (2 cores, 5 x 5 kernels, 32 to 256 images, 64 channels).
_MANY_ROWS = 256


def outer(a, b):
    """Sum over rows: [..., M], [..., N] -> [M, N]. Rows are flattened first, else XLA copies a transposed operand."""
    return jnp.einsum("rm,rn->mn", a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]))


def is_small_grid(shape, k, stride):
    """Whether much of a padded convolution would be padding, and its patches of one row of the kernel are small."""
    return (
        stride == 1 and k % 2 == 1 and 1 < k and shape[1] <= _SMALL_GRID * k and math.prod(shape) * k <= _GRID_PATCHES
    )


def column_patches(x, k):
    """[B, X, Y, C] -> [B, X, Y, k*C]: the pixels left and right of each, zeros beyond the edges."""
    x = jnp.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (0, 0)))
    return jnp.concatenate([x[:, :, j : j + x.shape[2] - k + 1] for j in range(k)], axis=-1)


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


def _by_image_row(rows, k):
    """For each row of an image: (row of the kernel, row of the result) of all that it meets."""
    shifts = [(row, k // 2 - row) for row in range(k)]
    return [[(row, at + shift) for row, shift in shifts if 0 <= at + shift < rows] for at in range(rows)]


def _many(x):
    """Whether images [B, X, Y, C] are so many that a product for each of their rows is faster than for each kernel's.

    It reads the kernel more often, and copies no rows.
    """
    return x.shape[0] * x.shape[2] >= _MANY_ROWS


def _grid_product(x, kernel):
    """[B, X, Y, C] and [k, k, C, D] -> the padded convolution [B, X, Y, D], without a bias."""
    rows, k = x.shape[1], kernel.shape[0]
    parts = kernel.reshape(k, -1, kernel.shape[3])
    if _many(x):
        result = [0] * rows
        for at, meets in enumerate(_by_image_row(rows, k)):
            wide = jnp.concatenate([parts[row] for row, _ in meets], axis=1)
            products = jnp.split(column_patches(x[:, at : at + 1], k) @ wide, len(meets), axis=-1)
            for (_, to), product in zip(meets, products, strict=True):
                result[to] += product
        return jnp.concatenate(result, axis=1)
    patches, zero, total = column_patches(x, k), jnp.zeros((), x.dtype), 0
    for part, (result, image) in zip(parts, _by_kernel_row(rows, k), strict=True):
        edges = (result.start, rows - result.stop, 0)
        total += lax.pad(patches[:, image] @ part, zero, ((0, 0, 0), edges, (0, 0, 0), (0, 0, 0)))
    return total


def _grid_gradient(x, g, k):
    """[B, X, Y, C] and [B, X, Y, D], of the result -> the kernel's gradient [k, k*C, D]."""
    rows = x.shape[1]
    if _many(x):
        total = [jnp.zeros((k * x.shape[3], g.shape[3]), x.dtype)] * k
        for at, meets in enumerate(_by_image_row(rows, k)):
            wide = jnp.concatenate([g[:, result : result + 1] for _, result in meets], axis=-1)
            parts = jnp.split(outer(column_patches(x[:, at : at + 1], k), wide), len(meets), axis=1)
            for (row, _), part in zip(meets, parts, strict=True):
                total[row] = total[row] + part
        return jnp.stack(total)
    patches = column_patches(x, k)
    return jnp.stack([outer(patches[:, image], g[:, result]) for result, image in _by_kernel_row(rows, k)])


@jax.custom_vjp
def grid_conv(x, kernel, bias):
    """Padded convolution of stride 1 that leaves out the rows of padding."""
    return _grid_product(x, kernel) + bias[None, None, None]


def _grid_fwd(x, kernel, bias):
    return grid_conv(x, kernel, bias), (x, kernel, bias)


def _grid_bwd(saved, g):
    x, kernel, bias = saved
    d_x = _grid_product(g, kernel[::-1, ::-1].swapaxes(2, 3))
    d_kernel = _grid_gradient(x, g, kernel.shape[0]).reshape(kernel.shape)
    return d_x, d_kernel, g.sum((0, 1, 2)).astype(bias.dtype)


grid_conv.defvjp(_grid_fwd, _grid_bwd)
