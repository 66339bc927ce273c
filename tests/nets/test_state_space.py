"""The modules of the state-space models against plain numpy, as the paper's figures draw them."""

import functools

import jax
import numpy as np
import pytest

from tests.fakes import normal, randomised
from tests.nets_by_hand import to_depth, to_space
from wmjax.nets import state_space as nets

C, A, B, X, Y = 8, 2, 2, 3, 4  # rows and columns differ: an exchange of the two is seen
KEY = jax.random.key(0)


def conv(p, x):
    """A convolution of stride 1 with zeros beyond the edges, tap by tap, in float64."""
    kernel = np.float64(p["kernel"])
    reach = kernel.shape[0] // 2
    out = np.zeros((*x.shape[:3], kernel.shape[3])) + p["bias"]
    for row, column in np.ndindex(*x.shape[1:3]):
        for i, j in np.ndindex(*kernel.shape[:2]):
            there = row + i - reach, column + j - reach
            if 0 <= there[0] < x.shape[1] and 0 <= there[1] < x.shape[2]:
                out[:, row, column] += x[:, there[0], there[1]] @ kernel[i, j]
    return out


def relu(x):
    return np.maximum(x, 0)


def conv_stack(p, x):
    first = conv(p["Conv_0"], x)
    second = first + conv(p["Conv_1"], relu(first))
    return conv(p["Conv_2"], relu(second))


def res_conv(p, x):
    y = conv(p["Conv_2"], relu(conv(p["Conv_1"], relu(conv(p["Conv_0"], x)))))
    return x[..., : y.shape[-1]] + y


def pool_inject(p, x):
    y = conv(p["Conv_0"], x)
    out = np.zeros((*x.shape[:3], x.shape[3] + y.shape[3]))
    for b, row, column in np.ndindex(*x.shape[:3]):
        out[b, row, column] = [*x[b, row, column], *(y[b, :, :, c].max() for c in range(y.shape[3]))]
    return out


def tiled(maps, action):
    """Maps side by side, the action at every position."""
    planes = np.zeros((*maps[0].shape[:3], action.shape[1])) + action[:, None, None]
    return np.concatenate([*maps, planes], axis=-1)


def transition(p, maps, action):
    x = relu(res_conv(p["before"], tiled(maps, action)))
    return res_conv(p["after"], pool_inject(p["pool"], x))


def frame_encoder(p, image, blocks=(4, 2)):
    return relu(conv_stack(p["coarse"], to_depth(conv_stack(p["fine"], to_depth(image, blocks[0])), blocks[1])))


def frame_decoder(p, x, blocks=(4, 2)):
    return to_space(conv_stack(p["fine"], to_space(conv_stack(p["coarse"], x), blocks[1])), blocks[0])


def reward_bits(p, x):
    y = relu(conv(p["Conv_0"], x))
    return np.stack([row.ravel() for row in y]) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]


def latent_head(p, maps, action):
    out = conv_stack(p["ConvStack_0"], tiled(maps, action))
    half = out.shape[-1] // 2
    return out[..., :half], np.log(1 + np.exp(out[..., half:])) + 1e-3


def initial_state(p, embeddings, actions):
    return conv_stack(p["ConvStack_0"], tiled([embeddings], actions))


STATE, LATENT, EMBED = normal(B, X, Y, C), normal(B, X, Y, C // 2, seed=1), normal(B, X, Y, C, seed=2)
ACTION, BOTH = normal(B, A, seed=3), normal(B, X, Y, C + C // 2, seed=4)
CASES = {  # module, its inputs, the same in numpy, the shapes of its results
    "conv_stack": (nets.ConvStack((1, 5, 3), (4, 4, 6)), (STATE,), conv_stack, [(B, X, Y, 6)]),
    "res_conv": (nets.ResConv(C), (BOTH,), res_conv, [(B, X, Y, C)]),
    "pool_inject": (nets.PoolInject(3), (STATE,), pool_inject, [(B, X, Y, C + 3)]),
    "transition": (nets.Transition(C), ([STATE, LATENT, EMBED], ACTION), transition, [(B, X, Y, C)]),
    "encoder": (nets.FrameEncoder(C, 12), (normal(B, 8 * X, 8 * Y, 3),), frame_encoder, [(B, X, Y, C)]),
    "decoder": (nets.FrameDecoder(12, 3), (BOTH,), frame_decoder, [(B, 8 * X, 8 * Y, 3)]),
    "encoder_of_small_blocks": (
        nets.FrameEncoder(C, 12, (1, 2)),
        (normal(B, 2 * X, 2 * Y, 3),),
        functools.partial(frame_encoder, blocks=(1, 2)),
        [(B, X, Y, C)],
    ),
    "decoder_of_small_blocks": (
        nets.FrameDecoder(12, 3, (1, 2)),
        (BOTH,),
        functools.partial(frame_decoder, blocks=(1, 2)),
        [(B, 2 * X, 2 * Y, 3)],
    ),
    "reward": (nets.RewardBits(C, 5), (BOTH,), reward_bits, [(B, 5)]),
    "latent": (nets.LatentHead(C), ([STATE, LATENT, LATENT, EMBED], ACTION), latent_head, 2 * [(B, X, Y, C // 2)]),
    "start": (nets.InitialState(C), (normal(B, X, Y, 3 * C), ACTION), initial_state, [(B, X, Y, C)]),
    "start_without_actions": (nets.InitialState(C), (BOTH, np.zeros((B, 0))), initial_state, [(B, X, Y, C)]),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_numpy(name):
    module, inputs, plain, shapes = CASES[name]
    params = randomised(jax.eval_shape(module.init, KEY, *inputs), scale=0.3)
    found = jax.tree.leaves(jax.jit(module.apply)(params, *inputs))
    assert [x.shape for x in found] == shapes
    for one, other in zip(found, jax.tree.leaves(plain(params["params"], *inputs)), strict=True):
        assert other.std() > 0.01
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_what_is_anywhere_is_known_everywhere():
    """A bright column reaches a position 15 columns away, beyond all kernels, through the pooled maps alone."""
    module = nets.Transition(C)
    state, action = normal(1, 3, 16, C), normal(1, A)
    state[:, :, 0] *= 20
    params = randomised(jax.eval_shape(module.init, KEY, [state], action), scale=0.3)
    far = jax.jit(jax.grad(lambda state, params: module.apply(params, [state], action)[0, 2, 15].sum()))
    assert (far(state, params)[0, :, 0] != 0).any()
    params["params"]["pool"]["Conv_0"]["kernel"] *= 0
    assert (far(state, params)[0, :, 0] == 0).all()


def test_first_standard_deviations_are_as_asked():
    for module, expected in ((nets.LatentHead(C), np.log(2)), (nets.LatentHead(C, 0.1), 0.1)):
        params = jax.tree.map(lambda x: np.zeros(x.shape), jax.eval_shape(module.init, KEY, [STATE], ACTION))
        _, std = jax.jit(module.apply)(params, [STATE], ACTION)
        np.testing.assert_allclose(std, expected + nets.MIN_STD, rtol=1e-5)


def test_no_standard_deviation_is_zero():
    module = nets.LatentHead(C)
    params = randomised(jax.eval_shape(module.init, KEY, [STATE], ACTION))
    params["params"]["ConvStack_0"]["Conv_2"]["bias"][C // 2 :] = -1e4
    _, std = jax.jit(module.apply)(params, [STATE], ACTION)
    np.testing.assert_array_equal(std, np.full((B, X, Y, C // 2), nets.MIN_STD, np.float32))
