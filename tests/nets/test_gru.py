"""GRU cells and heads against plain numpy."""

import jax
import numpy as np
import pytest

from tests.fakes import randomised
from wmjax.nets.gru import GRU
from wmjax.nets.mlp import MLP, GaussianHead, ObservedGaussianHead

UNITS, INPUTS, ROWS, TIME = 3, 2, 4, 5


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def gru_by_element(p, h, x, after):
    """One row of a GRU, unit by unit: r, u in the first and second third of the fused kernels, the candidate last."""
    new = np.zeros(UNITS)
    gate = np.zeros(2 * UNITS)
    for i in range(2 * UNITS):
        total = p["gates_bias"][i]
        total += sum(x[j] * p["input_kernel"][j, i] for j in range(INPUTS))
        total += sum(h[j] * p["gates_kernel"][j, i] for j in range(UNITS))
        gate[i] = sigmoid(total)
    reset, update = gate[:UNITS], gate[UNITS:]
    for i in range(UNITS):
        total = p["candidate_bias"][i] + sum(x[j] * p["input_kernel"][j, 2 * UNITS + i] for j in range(INPUTS))
        if after:
            total += reset[i] * (sum(h[j] * p["candidate_kernel"][j, i] for j in range(UNITS)) + p["hidden_bias"][i])
        else:
            total += sum(reset[j] * h[j] * p["candidate_kernel"][j, i] for j in range(UNITS))
        new[i] = update[i] * h[i] + (1 - update[i]) * np.tanh(total)
    return new


@pytest.mark.parametrize("reset", ["before", "after"])
def test_gru_equals_a_numpy_loop_over_time(reset):
    rng = np.random.default_rng(1)
    gru = GRU(UNITS, reset=reset)
    xs = rng.normal(size=(TIME, ROWS, INPUTS)).astype(np.float32)
    h = rng.normal(size=(ROWS, UNITS)).astype(np.float32)
    params = randomised(jax.eval_shape(gru.init, jax.random.key(0), h, xs[0]))

    @jax.jit
    def scan(params, h, xs):
        return jax.lax.scan(lambda h, x: (gru.apply(params, h, x),) * 2, h, xs)[1]

    states = scan(params, h, xs)
    for t in range(TIME):
        h = np.stack([gru_by_element(params["params"], h[b], xs[t, b], reset == "after") for b in range(ROWS)])
        np.testing.assert_allclose(states[t], h, rtol=1e-4, atol=1e-5)


def test_gru_gates_begin_open():
    params = jax.jit(GRU(UNITS).init)(jax.random.key(0), np.zeros((1, UNITS)), np.zeros((1, INPUTS)))["params"]
    np.testing.assert_array_equal(params["gates_bias"], np.ones(2 * UNITS))
    np.testing.assert_array_equal(params["candidate_bias"], np.zeros(UNITS))
    assert "hidden_bias" not in params


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
