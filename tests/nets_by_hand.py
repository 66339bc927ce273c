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


def convolve(layer, x, stride):
    """Valid, with bias: pixel by pixel. layer: dict of kernel [k, k, C, D] and bias [D]."""
    kernel, size = layer["kernel"], layer["kernel"].shape[0]
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i, j in np.ndindex(rows, columns):
        patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, i, j] = np.einsum("bxyc,xycd->bd", patch, kernel) + layer["bias"]
    return out


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def image_rewards(params, images, known=None):
    """The network of `nets/reward.py`: images [B, K, X, Y, C] -> [B, out]."""
    relu = lambda x: np.maximum(x, 0)
    x = np.concatenate(list(np.moveaxis(images, 1, 0)), axis=-1)
    for name in sorted(params["images"]):
        x = relu(convolve(params["images"][name], x, 2))
    x = x.reshape(len(x), -1)
    if known is not None:
        for i in range(3):
            known = relu(dense(params["known"][f"Dense_{i}"], known))
        x = np.concatenate([x, known], axis=-1)
    for i in range(2):
        x = relu(dense(params["head"][f"Dense_{i}"], x))
    return dense(params["head"]["Dense_2"], x)


def convolve_same(x, kernel):
    """Stride 1, without bias, zero padding that keeps the size: pixel by pixel."""
    k = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i, j in np.ndindex(*x.shape[1:3]):
        out[:, i, j] = np.einsum("bxyc,xycd->bd", padded[:, i : i + k, j : j + k], kernel)
    return out
