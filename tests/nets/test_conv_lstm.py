"""A ConvLSTM against plain numpy."""

import jax
import numpy as np

from tests.fakes import normal, randomised
from tests.nets_by_hand import convolve_same, layer_norm, sigmoid
from wmjax.nets.conv_lstm import ConvLSTM

KEY = jax.random.key(0)


def test_conv_lstm_equals_a_numpy_loop_over_time():
    features, rows = 2, 3
    cell = ConvLSTM(features, 3)
    xs = normal(4, rows, 4, 5, 3)
    state = (normal(rows, 4, 5, features, seed=1), normal(rows, 4, 5, features, seed=2))
    params = randomised(jax.eval_shape(cell.init, KEY, state, xs[0]))
    scan = jax.jit(lambda p, s, xs: jax.lax.scan(lambda s, x: (cell.apply(p, s, x),) * 2, s, xs)[1])
    scanned = scan(params, state, xs)
    p = params["params"]
    h, c = (np.float64(x) for x in state)
    for t, x in enumerate(xs):
        gates = layer_norm(p["norm_x"], convolve_same(x, p["conv_x"]["kernel"]))
        gates = gates + layer_norm(p["norm_h"], convolve_same(h, p["conv_h"]["kernel"])) + p["bias"]
        i, f, g, o = np.split(gates, 4, axis=-1)
        see_i, see_f, see_o = p["peepholes"]
        c = sigmoid(f + 1 + see_f * c) * c + sigmoid(i + see_i * c) * np.tanh(g)
        h = sigmoid(o + see_o * c) * np.tanh(c)
        np.testing.assert_allclose(scanned[0][t], h, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(scanned[1][t], c, rtol=1e-3, atol=1e-4)
