"""GRU cells against plain numpy."""

import jax
import numpy as np
import pytest

from tests.fakes import randomised
from tests.nets_by_hand import sigmoid
from wmjax.nets.gru import GRU

UNITS, INPUTS, ROWS, TIME = 3, 2, 4, 5


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


def test_a_projected_input_is_a_further_input():
    """Its product with rows of the kernel was made before."""
    rng = np.random.default_rng(2)
    h, x = rng.normal(size=(ROWS, UNITS)).astype(np.float32), rng.normal(size=(ROWS, INPUTS)).astype(np.float32)
    further, rows = (rng.normal(size=size).astype(np.float32) for size in ((ROWS, 4), (4, 3 * UNITS)))
    params = randomised(jax.eval_shape(GRU(UNITS).init, jax.random.key(0), h, x))["params"]
    longer = params | dict(input_kernel=np.concatenate([params["input_kernel"], rows]))
    one = GRU(UNITS).apply({"params": longer}, h, np.concatenate([x, further], -1))
    two = GRU(UNITS).apply({"params": params}, h, x, further @ rows)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_gru_gates_begin_open():
    params = jax.jit(GRU(UNITS).init)(jax.random.key(0), np.zeros((1, UNITS)), np.zeros((1, INPUTS)))["params"]
    np.testing.assert_array_equal(params["gates_bias"], np.ones(2 * UNITS))
    np.testing.assert_array_equal(params["candidate_bias"], np.zeros(UNITS))
    assert "hidden_bias" not in params
