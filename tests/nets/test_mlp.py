"""Perceptrons and Gaussian heads against plain numpy."""

import jax
import numpy as np

from tests.fakes import randomised
from wmjax.nets.mlp import MLP, GaussianHead, ObservedGaussianHead

UNITS, INPUTS, ROWS, TIME = 3, 2, 4, 5


def softplus(x):
    return np.log1p(np.exp(x))


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def test_mlp_and_gaussian_head_equal_numpy():
    x = np.random.default_rng(0).normal(size=(ROWS, INPUTS)).astype(np.float32)
    mlp = MLP((5, 6), 2 * UNITS)
    params = randomised(jax.eval_shape(mlp.init, jax.random.key(0), x))
    layers = [params["params"][f"Dense_{i}"] for i in range(3)]
    hidden = np.maximum(dense(layers[1], np.maximum(dense(layers[0], x), 0)), 0)
    out = dense(layers[2], hidden)
    np.testing.assert_allclose(mlp.apply(params, x), out, rtol=1e-4, atol=1e-5)

    head = GaussianHead((5, 6), UNITS, min_std=0.3)
    mean, std = head.apply({"params": {"MLP_0": params["params"]}}, x)
    np.testing.assert_allclose(mean, out[:, :UNITS], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, softplus(out[:, UNITS:]) + 0.3, rtol=1e-4, atol=1e-5)


def test_standard_deviations_have_a_floor_and_means_none():
    head = GaussianHead((), 1, min_std=0.1)
    params = {"params": {"MLP_0": {"Dense_0": {"kernel": np.float32([[1, 1]]), "bias": np.zeros(2, np.float32)}}}}
    mean, std = head.apply(params, np.float32([[-200], [0], [200]]))
    np.testing.assert_allclose(mean[:, 0], [-200, 0, 200])
    np.testing.assert_allclose(std[:, 0], [0.1, np.log(2) + 0.1, 200.1], rtol=1e-6)


def test_observed_head_equals_a_head_of_the_concatenation():
    rng = np.random.default_rng(0)
    x, embedding = (rng.normal(size=(ROWS, width)).astype(np.float32) for width in (3, 7))
    head = ObservedGaussianHead(5, UNITS)
    params = randomised(jax.eval_shape(lambda key: head.init(key, x, embedding, method="init_both"), jax.random.key(0)))
    mean, std = head.apply(params, x, head.apply(params, embedding, method="project"))

    p = params["params"]
    assert "bias" not in p["observed"]  # one bias for the one layer
    kernel = np.concatenate([p["recurrent"]["kernel"], p["observed"]["kernel"]])
    hidden = np.maximum(np.concatenate([x, embedding], -1) @ kernel + p["recurrent"]["bias"], 0)
    out = dense(p["head"]["MLP_0"]["Dense_0"], hidden)
    np.testing.assert_allclose(mean, out[:, :UNITS], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, softplus(out[:, UNITS:]) + 0.1, rtol=1e-4, atol=1e-5)
