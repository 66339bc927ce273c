"""The dynamics of a grid: where actions enter, and sizes against the paper's."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.fakes import normal, randomised
from tests.nets_by_hand import convolve, dense, layer_norm
from wmjax.nets.grid_dynamics import GridDynamics, GridHead, GridReward
from wmjax.nets.vqvae import GridDecoder, GridEncoder

KEY = jax.random.key(0)


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


def test_reward_logits_equal_numpy():
    hidden, action, head = normal(2, 3, 2, 4), normal(2, 3, seed=1), GridReward(5, 6)
    params = randomised(jax.eval_shape(head.init, KEY, hidden, action), scale=0.5)
    layers, leaky = params["params"], lambda x: np.where(x > 0, x, 0.01 * x)
    planes = np.tile(action[:, None, None], (1, 3, 2, 1))
    x = convolve(layers["Conv_0"], np.concatenate([hidden, planes], -1), 1)
    x = leaky(layer_norm(layers["GridNorm_0"], x)).reshape(2, -1)
    expected = dense(layers["Dense_1"], leaky(dense(layers["Dense_0"], x)))
    np.testing.assert_allclose(head.apply(params, hidden, action), expected, rtol=1e-4, atol=1e-4)
