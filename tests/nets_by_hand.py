"""Pieces of networks in plain numpy."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(params, x):
    p = params["LayerNorm_0"]
    mean, variance = (getattr(x, f)(axis=(1, 2, 3), keepdims=True) for f in ("mean", "var"))
    return (x - mean) / np.sqrt(variance + 1e-5) * p["scale"] + p["bias"]


def to_depth(x, size):
    out = np.zeros((x.shape[0], x.shape[1] // size, x.shape[2] // size, size * size * x.shape[3]))
    for row, column, channel in np.ndindex(*x.shape[1:]):
        inside = (row % size * size + column % size) * x.shape[3] + channel
        out[:, row // size, column // size, inside] = x[:, row, column, channel]
    return out


def to_space(x, size):
    channels = x.shape[3] // size**2
    out = np.zeros((x.shape[0], x.shape[1] * size, x.shape[2] * size, channels))
    for row, column, channel in np.ndindex(*out.shape[1:]):
        inside = (row % size * size + column % size) * channels + channel
        out[:, row, column, channel] = x[:, row // size, column // size, inside]
    return out
