"""Policy networks: the paper's layers by their sizes, and their output against plain numpy."""

import jax
import numpy as np

from tests.fakes import randomised
from wmjax.nets.policy import GridPolicy, ImagePolicy, VectorPolicy

KEY = jax.random.key(0)
ROWS, ACTIONS = 3, 4


def shapes(network, *shape):
    """Parameter shapes by name, and their total."""
    params = jax.eval_shape(network.init, KEY, np.zeros((1, *shape), np.float32))["params"]
    by_name = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    return by_name, sum(np.prod(shape, dtype=int) for shape in by_name.values())


def inputs(*shape):
    return np.random.default_rng(1).normal(size=(ROWS, *shape)).astype(np.float32)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def heads(p, x, layers):
    """VectorPolicy in numpy."""
    for i in range(layers):
        x = leaky(dense(p[f"Dense_{i}"], x))
    return dense(p["logits"], x), dense(p["value"], x)[:, 0]


def conv(kernel, x):
    """One image [X, Y, C], zeros beyond its edges, pixel by pixel."""
    reach = kernel.shape[0] // 2
    out = np.zeros((*x.shape[:2], kernel.shape[3]))
    for row, col in np.ndindex(*x.shape[:2]):
        for i, j in np.ndindex(*kernel.shape[:2]):
            there = row + i - reach, col + j - reach
            if 0 <= there[0] < x.shape[0] and 0 <= there[1] < x.shape[1]:
                out[row, col] += x[there] @ kernel[i, j]
    return out


def norm(p, x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p["scale"] + p["bias"]


def test_grid_policy_has_the_papers_layers():
    by_name, total = shapes(GridPolicy(6), 6, 6, 32)
    assert by_name == {
        "Conv_0/kernel": (1, 1, 32, 64),
        "Conv_1/kernel": (5, 5, 64, 64),
        "GridNorm_0/LayerNorm_0/bias": (6, 6, 64),
        "GridNorm_0/LayerNorm_0/scale": (6, 6, 64),
        "GridNorm_1/LayerNorm_0/bias": (6, 6, 64),
        "GridNorm_1/LayerNorm_0/scale": (6, 6, 64),
        "VectorPolicy_0/Dense_0/bias": (512,),
        "VectorPolicy_0/Dense_0/kernel": (6 * 6 * 64, 512),
        "VectorPolicy_0/logits/bias": (6,),
        "VectorPolicy_0/logits/kernel": (512, 6),
        "VectorPolicy_0/value/bias": (1,),
        "VectorPolicy_0/value/kernel": (512, 1),
    }
    assert total == 2048 + 102_400 + 4 * 2304 + 1_180_160 + 3078 + 513


def test_vector_policy_sizes():
    assert shapes(VectorPolicy(6), 36)[1] == 36 * 512 + 512 + 512 * 512 + 512 + 512 * 7 + 7
    assert shapes(VectorPolicy(2, (8,)), 3)[1] == 3 * 8 + 8 + 8 * 3 + 3


def test_grid_policy_equals_numpy():
    network = GridPolicy(ACTIONS, channels=5, kernel=3, widths=(7,))
    x = inputs(3, 4, 2)
    params = randomised(jax.eval_shape(network.init, KEY, x))
    p = params["params"]
    logits, value = network.apply(params, x)
    assert logits.shape == (ROWS, ACTIONS) and value.shape == (ROWS,)
    for row in range(ROWS):
        image = leaky(norm(p["GridNorm_0"]["LayerNorm_0"], conv(p["Conv_0"]["kernel"], x[row])))
        image = leaky(norm(p["GridNorm_1"]["LayerNorm_0"], conv(p["Conv_1"]["kernel"], image)))
        expected = heads(p["VectorPolicy_0"], image.reshape(1, -1), 1)
        np.testing.assert_allclose(logits[row], expected[0][0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(value[row], expected[1][0], rtol=1e-3, atol=1e-3)


def test_vector_policy_equals_numpy():
    network = VectorPolicy(ACTIONS, (5, 6))
    x = inputs(3)
    params = randomised(jax.eval_shape(network.init, KEY, x))
    logits, value = network.apply(params, x)
    expected = heads(params["params"], x, 2)
    np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value, expected[1], rtol=1e-4, atol=1e-4)
    assert value.shape == (ROWS,)


def test_a_new_policy_takes_all_actions_about_equally():
    network = GridPolicy(18)
    x = inputs(6, 6, 32)
    logits, value = network.apply(jax.jit(network.init)(KEY, x), x)
    probability = np.asarray(jax.nn.softmax(logits))
    assert probability.min() > 0.5 / 18 and probability.max() < 2 / 18
    assert 0 < np.abs(value).max() < 1


def test_image_policy_is_convolutions_before_a_grid_policy():
    network = ImagePolicy(ACTIONS, (3, 5))
    params = randomised(jax.eval_shape(network.init, KEY, np.zeros((1, 8, 8, 1), np.float32)))
    x = inputs(8, 8, 1)
    p = params["params"]
    grids = []
    for image in x:
        for i in range(2):
            padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
            size, kernel = image.shape[0] // 2, p[f"Conv_{i}"]["kernel"]
            out = np.zeros((size, size, kernel.shape[3]))
            for row, col in np.ndindex(size, size):
                patch = padded[2 * row : 2 * row + 4, 2 * col : 2 * col + 4]
                out[row, col] = np.einsum("xyc,xycd->d", patch, kernel)
            image = leaky(norm(p[f"GridNorm_{i}"]["LayerNorm_0"], out))
        grids.append(image)
    grid = GridPolicy(ACTIONS)
    expected = grid.apply(dict(params=p["GridPolicy_0"]), np.float32(grids))
    for got, wanted in zip(jax.jit(network.apply)(params, x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
