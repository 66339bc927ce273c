"""One step of SV2P against plain numpy loops, and the numbers of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import normal, randomised
from tests.nets_by_hand import convolve, convolve_same, dense, layer_norm, sigmoid
from wmjax.nets import sv2p
from wmjax.nets.reward import ActivationReward, ImageRewards

KEY = jax.random.key(0)
ROWS, SHAPE, ACTIONS, NOISE = 2, (8, 16, 2), 3, 1
FILTERS = (2, 1, 2, 3, 4, 3, 2)


def inputs(shape=SHAPE, filters=FILTERS, rows=ROWS, actions=ACTIONS, reward=True):
    """Arguments of SV2P: numpy noise."""
    cells = tuple(
        (normal(rows, *s, seed=n), normal(rows, *s, seed=9 + n)) for n, s in enumerate(sv2p.cell_shapes(shape, filters))
    )
    image, action = np.abs(normal(rows, *shape)) % 1, normal(rows, actions, seed=1)
    noise = normal(rows, shape[0] // 8, shape[1] // 8, NOISE, seed=2)
    return cells, image, action, normal(rows, seed=3) if reward else None, noise


def size(module, *args):
    """Number of parameters of a module."""
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(module.init, KEY, *args)))


def relu(x):
    return np.maximum(x, 0)


def halved(p, x, k):
    """Padded convolution at every second pixel, with a relu: with an even side the last rows see one zero more."""
    pad = k - 2
    x = np.pad(x, ((0, 0), (pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)))
    out = np.zeros((x.shape[0], (x.shape[1] - pad) // 2, (x.shape[2] - pad) // 2, p["kernel"].shape[3]))
    for i, j in np.ndindex(*out.shape[1:3]):
        out[:, i, j] = np.einsum("bxyc,xycd->bd", x[:, 2 * i : 2 * i + k, 2 * j : 2 * j + k], p["kernel"])
    return relu(out + p["bias"])


def doubled(p, x):
    """Every pixel stamps a flipped 3 x 3 kernel at twice its place."""
    kernel = p["ConvTranspose_0"]["kernel"][::-1, ::-1]
    out = np.zeros((x.shape[0], 2 * x.shape[1] + 1, 2 * x.shape[2] + 1, kernel.shape[3]))
    for i, j in np.ndindex(*x.shape[1:3]):
        out[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.einsum("bc,xycd->bxyd", x[:, i, j], kernel)
    return relu(out + p["ConvTranspose_0"]["bias"])[:, 1:, 1:]


def by_hand(p, cells, image, action, reward, noise):
    """The step in float64: (cells, image)."""
    stepped = []

    def norm(n, x):
        return layer_norm({"LayerNorm_0": p[f"ChannelNorm_{n}"]["LayerNorm_0"]}, x)

    def cell(x):
        n = len(stepped)
        h, c = (np.float64(x) for x in cells[n])
        gates = p[f"ConvLSTM_{n}"]["gates"]
        i, j, f, o = np.split(convolve_same(np.concatenate([x, h], -1), gates["kernel"]) + gates["bias"], 4, axis=-1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
        stepped.append((sigmoid(o) * np.tanh(c), c))
        return norm(n + 1, stepped[-1][0])

    enc0 = norm(0, halved(p["Conv_0"], image, 5))
    enc1 = halved(p["Conv_1"], cell(cell(enc0)), 3)
    enc2 = halved(p["Conv_2"], cell(cell(enc1)), 3)
    plane = (*enc2.shape[:3], 1)
    told = [dense(p[f"Plane_{n}"]["Dense_0"], x).reshape(plane) for n, x in enumerate((action, reward[:, None]))]
    bottom = cell(relu(dense(p["Dense_0"], np.concatenate([enc2, *told, noise], -1))))
    enc4 = doubled(p["Upsample_0"], bottom)
    enc5 = doubled(p["Upsample_1"], np.concatenate([cell(enc4), enc1], -1))
    enc6 = norm(8, doubled(p["Upsample_2"], np.concatenate([cell(enc5), enc0], -1)))
    drawn = sigmoid(dense(p["Dense_1"], enc6))
    masks = np.exp(dense(p["Dense_2"], enc6))
    masks /= masks.sum(-1, keepdims=True)
    kernels = relu(dense(p["Dense_3"], bottom.reshape(len(image), -1)) - 1e-12).reshape(len(image), 5, 5, 10) + 1e-12
    kernels /= kernels.sum((1, 2), keepdims=True)
    result = masks[..., :1] * image + masks[..., 1:2] * drawn
    for n in range(9):  # the tenth kernel is left out
        for b in range(len(image)):
            for channel in range(image.shape[-1]):
                one = convolve_same(image[b : b + 1, ..., channel : channel + 1], kernels[b, :, :, n, None, None])
                result[b, ..., channel] += masks[b, ..., 2 + n] * one[0, ..., 0]
    return stepped, result


def test_a_step_equals_numpy():
    args = inputs()
    body = sv2p.SV2P(FILTERS)
    params = randomised(jax.eval_shape(body.init, KEY, *args), 0.5)
    cells, image, activations = jax.jit(body.apply)(params, *args)
    expected_cells, expected = by_hand(params["params"], *args)
    np.testing.assert_allclose(image, expected, rtol=1e-3, atol=1e-4)
    for one, other in zip(jax.tree.leaves(cells), jax.tree.leaves(expected_cells), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    assert [x.shape[1:] for x in activations] == [(4, 8, 32), (2, 4, 1), (2, 4, 4), (4, 8, 4), (8, 16, 34)]


def test_kernels_have_sum_1_also_where_no_output_is_above_0():
    outputs = np.concatenate([normal(2, 250), np.full((1, 250), -3, np.float32)])
    kernels = sv2p.normalised_kernels(outputs)
    assert (np.asarray(kernels) >= 0).all()
    np.testing.assert_allclose(kernels.sum(1), np.ones((3, 10)), rtol=1e-5)
    np.testing.assert_allclose(kernels[2], np.full((25, 10), 1 / 25), rtol=1e-5)


def test_an_identity_kernel_copies_the_image_and_others_move_it():
    image = normal(2, 6, 7, 3)
    kernels = np.zeros((2, 25, 1), np.float32)
    masks = np.ones((2, 6, 7, 1), np.float32)
    kernels[0, 12] = kernels[1, 11] = 1
    moved = np.asarray(sv2p.advect(image, kernels, masks))
    np.testing.assert_array_equal(moved[0], image[0])
    np.testing.assert_array_equal(moved[1, :, 1:], image[1, :, :-1])
    np.testing.assert_array_equal(moved[1, :, 0], np.zeros((6, 3)))


def test_masks_say_where_a_pixel_comes_from():
    image, drawn = normal(1, 4, 4, 2), normal(1, 4, 4, 2, seed=1)
    kernels = np.asarray(sv2p.normalised_kernels(normal(1, 250)))
    for n, expected in ((0, image), (1, drawn)):
        masks = np.zeros((1, 4, 4, 11), np.float32)
        masks[..., n] = 1
        np.testing.assert_array_equal(sv2p.compose(image, drawn, kernels, masks), expected)


def test_a_cell_that_sees_nothing_forgets_slowly():
    cell = sv2p.ConvLSTM(2)
    x, h, c = (
        np.zeros((1, 6, 6, 2), np.float32),
        np.zeros((1, 6, 6, 2), np.float32),
        np.ones((1, 6, 6, 2), np.float32),
    )
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(cell.init, KEY, (h, c), x))
    np.testing.assert_allclose(cell.apply(params, (h, c), x)[1], sigmoid(1.0) * c, rtol=1e-6)


def test_tiny_grids_take_another_convolution_with_the_same_parameters_and_result():
    cell = sv2p.ConvLSTM(2)
    for side in (5, 6):
        state = (normal(1, side, side, 2), normal(1, side, side, 2, seed=1))
        x = normal(1, side, side, 3, seed=2)
        params = randomised(jax.eval_shape(cell.init, KEY, state, x))
        gates = params["params"]["gates"]
        seen = convolve_same(np.concatenate([x, state[0]], -1), gates["kernel"]) + gates["bias"]
        i, j, f, o = np.split(seen, 4, axis=-1)
        expected = sigmoid(f + 1) * state[1] + sigmoid(i) * np.tanh(j)
        np.testing.assert_allclose(cell.apply(params, state, x)[1], expected, rtol=1e-3, atol=1e-4)


def test_gradients_of_moved_images_equal_differences():
    args = (normal(1, 3, 4, 2), normal(1, 9, 2, seed=1), normal(1, 3, 4, 2, seed=2))
    loss = lambda *args: jnp.sum(jnp.sin(sv2p.advect(*args)))
    grads = jax.grad(loss, argnums=(0, 1, 2))(*args)
    for n, grad in enumerate(grads):
        way = normal(*args[n].shape, seed=7)
        ahead, back = (loss(*args[:n], args[n] + step * way, *args[n + 1 :]) for step in (1e-2, -1e-2))
        np.testing.assert_allclose((ahead - back) / 2e-2, (grad * way).sum(), rtol=1e-2, atol=1e-3)


def test_rewards_of_activations_equal_numpy():
    """Grids of 9 become 7, 3, 1; those of less are padded."""
    grids, reward = [normal(2, 9, 9, 3), normal(2, 4, 4, 2, seed=1)], ActivationReward()
    params = randomised(jax.eval_shape(reward.init, KEY, grids), 0.5)
    layers, codes = params["params"], []
    for n, x in enumerate(grids):
        for i, stride in enumerate((1, 2, 2)):
            edge = ((0, 0), (1, 1) if stride == 1 else (0, 1), (1, 1) if stride == 1 else (0, 1), (0, 0))
            x = relu(convolve(layers[f"Conv_{3 * n + i}"], np.pad(x, edge) if n else x, stride))
        codes.append(relu(dense(layers[f"Dense_{n}"], x.reshape(2, -1))))
    x = relu(dense(layers["Dense_3"], relu(dense(layers["Dense_2"], np.concatenate(codes, -1)))))
    np.testing.assert_allclose(reward.apply(params, grids), dense(layers["Dense_4"], x)[:, 0], rtol=1e-4, atol=1e-4)


def filters_of(divisor):
    return tuple(n // divisor for n in sv2p.FILTERS)


def parameters_by_hand(filters, side=64, channels=3, actions=6):
    """Of the layers of Finn et al. 2016, one by one."""
    conv = lambda k, c, d: k * k * c * d + d
    f1, f2, f3, f4, f5, f6, f7 = filters
    into = (32, f1, f2, f3, f4, f5, f6 + f2)  # channels of what each ConvLSTM sees
    cells = sum(conv(5, c + d, 4 * d) + 2 * d for c, d in zip(into, filters, strict=True))  # and their norms
    down = conv(5, channels, 32) + 2 * 32 + conv(3, f2, f2) + conv(3, f4, f4) + conv(1, f4 + 2, f4)
    up = conv(3, f5, f5) + conv(3, f6 + f2, f6 + f2) + conv(3, f7 + 32, f7 + 32) + 2 * (f7 + 32)
    grid = (side // 8) ** 2
    return cells + down + up + (actions + 1) * grid + conv(1, f7 + 32, channels + 11) + conv(1, grid * f5, 250)


@pytest.mark.parametrize("divisor", [1, 2, 4, 8, 16, 32])
def test_numbers_of_parameters_of_table_14(divisor):
    filters = filters_of(divisor)
    args = jax.eval_shape(lambda: inputs((64, 64, 3), filters, 1, 6, reward=False))
    assert size(sv2p.SV2P(filters), *args) == parameters_by_hand(filters)


def test_the_published_numbers_of_parameters():
    """8.34M and 8.38M of Table 6, by cheetah_run's six actions and the authors' layers, to the last one.

    Theirs adds to OT_OR's rewards what the study does not say: a network for two rewards (2 -> 32 -> 16 -> 8), and two
    outputs that are not used.
    """
    images = jax.ShapeDtypeStruct((1, 13, 64, 64, 3), jnp.float32)
    theirs = (2 * 32 + 32) + (32 * 16 + 16) + (16 * 8 + 8) + 8 * 32 + 2 * (16 + 1)
    args = jax.eval_shape(lambda: inputs((64, 64, 3), sv2p.FILTERS, 1, 6, reward=False))
    assert size(sv2p.SV2P(), *args) + size(ImageRewards(12), images) + theirs == 8_342_358
    args = jax.eval_shape(lambda: inputs((64, 64, 3), sv2p.FILTERS, 1, 6))
    params = jax.eval_shape(sv2p.SV2P().init, KEY, *args)
    activations = jax.eval_shape(sv2p.SV2P().apply, params, *args)[2]
    assert size(sv2p.SV2P(), *args) + size(ActivationReward(), activations) == 8_380_893
