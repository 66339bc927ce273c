"""The gated PixelCNN sees what stands before a position and nothing else, and is what a plain loop says."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.fakes import randomised
from wmjax.nets.pixel_cnn import GatedPixelCNN

KEY = jax.random.key(0)
X, Y, D, C = 4, 3, 2, 2


def made(**settings):
    net = GatedPixelCNN(out=3, channels=4, **settings)
    x, condition = np.zeros((1, X, Y, D), np.float32), np.zeros((1, X, Y, C), np.float32)
    return net, randomised(jax.eval_shape(net.init, KEY, x, condition), scale=0.5)


def test_sees_all_positions_before_and_none_after():
    net, params = made(layers=3, kernel=5)
    x = np.random.default_rng(0).normal(size=(1, X, Y, D)).astype(np.float32)
    condition = np.random.default_rng(1).normal(size=(1, X, Y, C)).astype(np.float32)
    jacobian = jax.jit(jax.jacobian(lambda x: net.apply(params, x, condition).sum((0, 3))))
    jacobian = jacobian(x)[:, :, 0]  # [X, Y, X, Y, D]
    reached = np.abs(jacobian).sum(-1) > 0
    for i, j in np.ndindex(X, Y):
        for k, l in np.ndindex(X, Y):
            assert reached[i, j, k, l] == ((k, l) < (i, j)), (i, j, k, l)


def test_one_layer_equals_a_loop():
    net, params = made(layers=1, kernel=3)
    rng = np.random.default_rng(2)
    x, condition = rng.normal(size=(2, X, Y, D)).astype(np.float32), rng.normal(size=(2, X, Y, C)).astype(np.float32)
    p = params["params"]
    out = np.zeros((2, X, Y, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i, j in np.ndindex(X, Y):
        above = sum(padded[:, i, j + b] @ p["down_0"]["kernel"][0, b] for b in range(3)) + p["down_0"]["bias"]
        left = padded[:, i + 1, j] @ p["across_0"]["kernel"][1, 0] + p["across_0"]["bias"]
        inner = left + above @ p["down_to_across_0"]["kernel"] + p["down_to_across_0"]["bias"]
        inner = inner + condition[:, i, j] @ p["condition_0"]["kernel"]
        gated = np.tanh(inner[:, :4]) / (1 + np.exp(-inner[:, 4:]))
        shown = np.maximum(gated @ p["out_0"]["kernel"] + p["out_0"]["bias"], 0)
        out[:, i, j] = shown @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(jax.jit(net.apply)(params, x, condition), out, rtol=1e-4, atol=1e-4)


def test_the_condition_reaches_every_layer():
    net, params = made(layers=2, kernel=3)
    x = jnp.zeros((1, X, Y, D))
    for name in ("condition_0", "condition_1", "condition_down_0"):
        other = jax.tree.map(np.copy, params)
        other["params"][name]["kernel"] *= 0
        condition = np.ones((1, X, Y, C), np.float32)
        assert (jax.jit(net.apply)(params, x, condition) != jax.jit(net.apply)(other, x, condition)).any(), name
