"""The centre square of images, cropped or filled with a smaller image (trade-offs study, Figs. 4 and 6)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np


def crop(image, side):
    """[B, X, Y, C] -> its centre [B, side, side, C]; of an odd rest the smaller half is above and to the left."""
    chex.assert_rank(image, 4)
    row, column = ((size - side) // 2 for size in image.shape[1:3])
    return image[:, row : row + side, column : column + side]


def shrink(image, side):
    """[B, X, Y, C] -> [B, side, side, C], every pixel the mean over the area that it stands for."""
    chex.assert_rank(image, 4)
    rows, columns = (area_weights(size, side) for size in image.shape[1:3])
    return jnp.einsum("ix,bxyc,jy->bijc", rows, image, columns, precision=jax.lax.Precision.HIGHEST)


def area_weights(size, side):
    """float32 [side, size]: how much of each of `side` equal lengths is in each of `size` pixels; rows sum to 1."""
    edges, pixels = np.linspace(0, size, side + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.float32(np.maximum(overlap, 0) * side / size)
