"""ConvLSTM, batch norm and the grid networks against plain numpy, and their sizes against the paper's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import randomised
from wmjax.nets.blocks import with_action
from wmjax.nets.conv_lstm import ConvLSTM
from wmjax.nets.grid_dynamics import GridDynamics, GridHead, GridReward
from wmjax.nets.norm import BatchNorm, GridNorm
from wmjax.nets.vqvae import GridDecoder, GridEncoder
from wmjax.ops.gradients import scale_gradient

KEY = jax.random.key(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolve(x, kernel):
    """Stride 1, zero padding that keeps the size: pixel by pixel."""
    k = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i, j in np.ndindex(*x.shape[1:3]):
        out[:, i, j] = np.einsum("bxyc,xycd->bd", padded[:, i : i + k, j : j + k], kernel)
    return out


def layer_norm(params, x):
    p = params["LayerNorm_0"]
    mean, variance = (getattr(x, f)(axis=(1, 2, 3), keepdims=True) for f in ("mean", "var"))
    return (x - mean) / np.sqrt(variance + 1e-5) * p["scale"] + p["bias"]


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
        gates = layer_norm(p["norm_x"], convolve(x, p["conv_x"]["kernel"]))
        gates = gates + layer_norm(p["norm_h"], convolve(h, p["conv_h"]["kernel"])) + p["bias"]
        i, f, g, o = np.split(gates, 4, axis=-1)
        see_i, see_f, see_o = p["peepholes"]
        c = sigmoid(f + 1 + see_f * c) * c + sigmoid(i + see_i * c) * np.tanh(g)
        h = sigmoid(o + see_o * c) * np.tanh(c)
        np.testing.assert_allclose(scanned[0][t], h, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(scanned[1][t], c, rtol=1e-3, atol=1e-4)


def test_batch_norm_with_its_own_and_with_given_statistics():
    x = 3 * normal(2, 3, 4, 5) + 1
    norm = BatchNorm()
    params = randomised(jax.eval_shape(norm.init, KEY, x))
    scale, bias = params["params"]["scale"], params["params"]["bias"]
    y, (mean, variance) = norm.apply(params, x)
    flat = x.reshape(-1, 5)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, flat.var(0), rtol=1e-5)
    np.testing.assert_allclose(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * scale + bias, rtol=1e-4, atol=1e-5)
    given = (normal(5), np.square(normal(5, seed=3)))
    y, used = norm.apply(params, x, given)
    np.testing.assert_allclose(y, (x - given[0]) / np.sqrt(given[1] + 1e-5) * scale + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(used[0], given[0])


def test_grid_norm_has_a_scale_for_every_position():
    x = normal(2, 3, 3, 4)
    params = randomised(jax.eval_shape(GridNorm().init, KEY, x))
    np.testing.assert_allclose(GridNorm().apply(params, x), layer_norm(params["params"], x), rtol=1e-4, atol=1e-5)
    assert params["params"]["LayerNorm_0"]["scale"].shape == (3, 3, 4)


def test_the_encoder_replaces_batch_statistics_one_by_one():
    """With the statistics it returned the result is the same, with others in any place it is not."""
    x = np.random.default_rng(0).uniform(size=(3, 16, 8, 1)).astype(np.float32)
    encoder = GridEncoder((4, 8), 5)
    params = jax.jit(encoder.init)(KEY, x)
    y, statistics = jax.jit(encoder.apply)(params, x)
    assert y.shape == (3, 4, 2, 5) and len(statistics) == 7
    np.testing.assert_allclose(jax.jit(encoder.apply)(params, x, statistics)[0], y, rtol=1e-4, atol=1e-4)
    for i in range(7):
        other = list(statistics)
        other[i] = (statistics[i][0] + 1, statistics[i][1])
        assert (jax.jit(encoder.apply)(params, x, tuple(other))[0] != y).any()


def count(shapes):
    return sum(x.size for x in jax.tree.leaves(shapes)) / 1e6


def test_parameter_counts_are_the_papers():
    """Table 4, to 5%: the encoder of one frame and the dynamics with 6 actions."""
    image, grid, action = jnp.zeros((1, 96, 96, 1)), jnp.zeros((1, 6, 6, 32)), jnp.zeros((1, 6))
    encoder = count(jax.eval_shape(GridEncoder((32, 64, 128, 256), 32).init, KEY, image))
    decoder = count(jax.eval_shape(GridDecoder((256, 128, 64, 32), 1).init, KEY, grid))
    cells = ((jnp.zeros((1, 6, 6, 128)),) * 2,) * 2
    dynamics = count(jax.eval_shape(GridDynamics((128, 128), 5).init, KEY, cells, grid, action))
    dynamics += count(jax.eval_shape(GridHead(128).init, KEY, cells[0][0], action, grid))
    dynamics += count(jax.eval_shape(GridReward(32, 512).init, KEY, cells[0][0], action))
    np.testing.assert_allclose([encoder, decoder, dynamics], [2.0, 2.1, 6.2], rtol=0.05)
    np.testing.assert_allclose([encoder, decoder, dynamics], [2.01, 2.07, 6.24], atol=0.01)  # the authors' layers


def test_encoder_and_decoder_sizes():
    assert jax.eval_shape(
        lambda x: GridEncoder((4, 4, 4), 7).init_with_output(KEY, x)[0][0], jnp.zeros((2, 32, 64, 4))
    ).shape == (2, 4, 8, 7)
    assert jax.eval_shape(
        lambda x: GridDecoder((4, 5, 6), 2).init_with_output(KEY, x)[0], jnp.zeros((2, 4, 8, 7))
    ).shape == (2, 32, 64, 2)


def test_actions_stand_beside_every_cell():
    grid, action = normal(2, 3, 4, 5), normal(2, 6, seed=1)
    both = np.asarray(with_action(grid, action))
    np.testing.assert_array_equal(both[..., :5], grid)
    for i, j in np.ndindex(3, 4):
        np.testing.assert_array_equal(both[:, i, j, 5:], action)


def test_action_reaches_the_second_cell_directly():
    """With the first cell's input weights of the action at zero the second one still sees it."""
    dynamics = GridDynamics((3, 3), 3)
    cells = ((np.zeros((1, 2, 2, 3), np.float32),) * 2,) * 2
    latent = normal(1, 2, 2, 5)
    params = randomised(jax.eval_shape(dynamics.init, KEY, cells, latent, normal(1, 2)), scale=0.3)
    params["params"]["cell_0"]["conv_x"]["kernel"][:, :, 5:] = 0
    one, other = (dynamics.apply(params, cells, latent, normal(1, 2, seed=s)) for s in (1, 2))
    np.testing.assert_array_equal(one[0][0], other[0][0])
    assert (one[1][0] != other[1][0]).any()
    params["params"]["cell_1"]["conv_x"]["kernel"][:, :, 3:] = 0
    one, other = (dynamics.apply(params, cells, latent, normal(1, 2, seed=s)) for s in (1, 2))
    np.testing.assert_array_equal(one[1][0], other[1][0])


@pytest.mark.parametrize("factor", [0.0, 1e-6, 0.5])
def test_scaled_gradient(factor):
    value, grad = jax.value_and_grad(lambda x: jnp.sum(3 * scale_gradient(x, factor)))(jnp.array([2.0]))
    np.testing.assert_allclose(value, 6, rtol=1e-6)
    np.testing.assert_allclose(grad, 3 * factor, rtol=1e-6)
