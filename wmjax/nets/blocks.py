"""Channels of a grid: blocks of pixels moved there and back (Buesing et al. 2018), planes of an action beside them."""

import jax.numpy as jnp


def to_depth(x, size):
    """[B, X, Y, C] -> [B, X / size, Y / size, size * size * C]."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows // size, size, columns // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows // size, columns // size, size * size * channels)


def to_space(x, size):
    """[B, X, Y, size * size * C] -> [B, X * size, Y * size, C]: undoes `to_depth`."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows, columns, size, size, channels // size**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * size, columns * size, channels // size**2)


def with_action(grid, action):
    """[B, X, Y, C] and [B, A] -> [B, X, Y, C + A]."""
    planes = jnp.broadcast_to(action[:, None, None], (*grid.shape[:3], action.shape[1]))
    return jnp.concatenate([grid, planes], axis=-1)
