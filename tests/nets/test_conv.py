"""Both forms of the convolutions agree, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from wmjax.nets import conv, small_grids

SIZES = [  # X, Y, k, stride
    (31, 31, 4, 2),
    (7, 5, 3, 1),
    (5, 6, 5, 2),
    (8, 9, 6, 2),
    (10, 11, 5, 3),
    (4, 4, 2, 2),
    (6, 7, 1, 1),
]
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.06}


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _value_and_gradients(function, x, kernel, bias, stride, activation):
    """Output and gradients with respect to x, kernel and bias, for one random cotangent."""
    y, vjp = jax.vjp(lambda *inputs: function(*inputs, stride, activation), x, kernel, bias)
    g = jax.random.normal(jax.random.key(9), y.shape, y.dtype)
    return y, *vjp(g)


def _inputs(rows, cols, k, channels=3, features=4, batch=4, dtype="float32"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, rows, cols, channels))
    kernel = rng.normal(size=(k, k, channels, features)) / (k * channels**0.5)
    bias = rng.normal(size=features)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), jnp.asarray(bias, dtype)


def _assert_same(ours, reference, dtype="float32"):
    for a, b in zip(ours, reference, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * max(1.0, np.abs(b).max()))


FORMS = [(conv._matmul_conv, conv._xla_conv), (conv._matmul_conv_transpose, conv._xla_conv_transpose)]


@pytest.mark.parametrize("ours, xla", FORMS)
@pytest.mark.parametrize("rows, cols, k, stride", SIZES)
def test_matmul_form_equals_xla_form(ours, xla, rows, cols, k, stride):
    arguments = (*_inputs(rows, cols, k), stride, jax.nn.elu)
    _assert_same(_value_and_gradients(ours, *arguments), _value_and_gradients(xla, *arguments))


@pytest.mark.parametrize("ours, xla", FORMS)
@pytest.mark.parametrize("batch, channels, features", [(1, 2, 3), (6, 20, 3), (7, 2, 18)])  # around _FEW_CHANNELS
def test_pieces_of_a_batch_add_up(ours, xla, batch, channels, features, monkeypatch):
    monkeypatch.setattr(conv, "_PIECE_BYTES", 1)
    arguments = (*_inputs(9, 8, 4, channels, features, batch), 2, jax.nn.relu)
    _assert_same(_value_and_gradients(ours, *arguments), _value_and_gradients(xla, *arguments))


@pytest.mark.parametrize("ours, xla", FORMS)
def test_bfloat16(ours, xla):
    arguments = (*_inputs(9, 9, 4, dtype="bfloat16"), 2, jax.nn.relu)
    _assert_same(_value_and_gradients(ours, *arguments), _value_and_gradients(xla, *arguments), "bfloat16")


@jax.jit
def _overlapping(x, kernel, bias, g):
    """A transposed convolution, and a convolution's gradient with respect to its input."""
    y = conv._matmul_conv_transpose(x, kernel, bias, 2, conv.identity)
    return y, jax.vjp(lambda x: conv._matmul_conv(x, kernel, bias, 2, conv.identity), x)[1](g)[0]


def test_sums_of_overlapping_products_are_rounded_once():
    x, kernel, bias = _inputs(9, 9, 4, dtype="bfloat16")
    g = jax.random.normal(jax.random.key(9), (4, 3, 3, 4), "bfloat16")
    exact = _overlapping(*(a.astype("float32") for a in (x, kernel, bias, g)))
    for found, expected in zip(_overlapping(x, kernel, bias, g), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype("float32"), expected, rtol=2**-8, atol=1e-6)


def test_number_of_pieces():
    frame = (10, 1024)  # 40 KiB of float32: 204 frames fit
    assert conv._pieces(204, frame, 4) == 1
    assert conv._pieces(2500, frame, 4) == 20  # at least 13; 20 is the next divisor
    assert conv._pieces(2503, frame, 4) == 1  # a prime number: never one frame at a time
    assert conv._pieces(0, frame, 4) == 1


@pytest.mark.parametrize("rows, cols, k, stride", [(8, 9, 4, 2), (10, 11, 5, 3)])
def test_public_functions_equal_lax(rows, cols, k, stride):
    x, kernel, bias = _inputs(rows, cols, k)
    numbers = ("NHWC", "HWIO", "NHWC")
    for padding in ("VALID", "SAME"):
        expected = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=numbers)
        np.testing.assert_allclose(conv.conv2d(x, kernel, stride, padding=padding), expected, atol=1e-5)
    expected = lax.conv_transpose(x, kernel, (stride, stride), "VALID", dimension_numbers=numbers)
    assert expected.shape[1:3] == ((rows - 1) * stride + k, (cols - 1) * stride + k)
    np.testing.assert_allclose(conv.conv2d_transpose(x, kernel, stride), expected, atol=1e-5)


@pytest.mark.parametrize(
    "rows, cols, k, dtype", [(6, 6, 5, "float32"), (10, 10, 5, "bfloat16"), (2, 3, 7, "float32"), (1, 2, 5, "bfloat16")]
)
@pytest.mark.parametrize("few", [0, 16])
def test_small_grids_equal_lax(rows, cols, k, dtype, few, monkeypatch):
    monkeypatch.setattr(small_grids, "_FEW_IMAGES", few)
    x, kernel, bias = _inputs(rows, cols, k, dtype=dtype)
    assert small_grids.is_small_grid(x.shape, k, 1)
    _assert_same_padding(x, kernel, bias, dtype)


@pytest.mark.parametrize("features", [2, 9, 10])  # around _WIDE times 3 channels
@pytest.mark.parametrize("rows, cols, k, dtype", [(11, 4, 5, "float32"), (7, 9, 3, "bfloat16"), (4, 5, 1, "float32")])
def test_padded_gradients_equal_lax(rows, cols, k, dtype, features, monkeypatch):
    monkeypatch.setattr(conv, "_PIECE_BYTES", 1)
    x, kernel, bias = _inputs(rows, cols, k, features=features, dtype=dtype)
    assert not small_grids.is_small_grid(x.shape, k, 1)
    _assert_same_padding(x, kernel, bias, dtype)


def _assert_same_padding(x, kernel, bias, dtype):
    k = kernel.shape[0]

    def ours(x, kernel, bias, stride, activation):
        return conv.conv2d(x, kernel, stride, padding="SAME", bias=bias, activation=activation)

    def xla(x, kernel, bias, stride, activation):
        pads = ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0))
        return conv._xla_conv(jnp.pad(activation(x), pads), kernel, bias, stride, lambda x: x)

    arguments = (x, kernel, bias, 1, jax.nn.elu)
    _assert_same(_value_and_gradients(ours, *arguments), _value_and_gradients(xla, *arguments), dtype)


def test_same_padding_pads_after_the_activation():
    x, kernel, _ = _inputs(5, 5, 3)
    expected = conv.conv2d(jax.nn.sigmoid(x), kernel, 2, padding="SAME")
    np.testing.assert_allclose(
        conv.conv2d(x, kernel, 2, padding="SAME", activation=jax.nn.sigmoid), expected, atol=1e-6
    )


def test_numpy_loops():
    x, kernel, bias = (np.asarray(a) for a in _inputs(5, 6, 3, channels=2, features=2, batch=1))
    small, large = np.zeros((1, 2, 2, 2)), np.zeros((1, 11, 13, 2))
    for row in range(5):
        for col in range(6):
            for a in range(3):
                for b in range(3):
                    # transposed, lax's convention: an input pixel stamps the flipped kernel
                    large[0, 2 * row + 2 - a, 2 * col + 2 - b] += x[0, row, col] @ kernel[a, b]
                    if row < 2 and col < 2:
                        small[0, row, col] += x[0, 2 * row + a, 2 * col + b] @ kernel[a, b]
    np.testing.assert_allclose(conv.conv2d(x, kernel, 2, bias=bias), small + bias[None, None, None], atol=1e-5)
    np.testing.assert_allclose(
        conv.conv2d_transpose(x, kernel, 2, bias=bias), large + bias[None, None, None], atol=1e-5
    )


def test_wrong_shapes_are_refused():
    x, kernel, _ = _inputs(6, 6, 3)
    with pytest.raises(AssertionError):
        conv.conv2d(x, kernel[:, :, :2], 2)
    with pytest.raises(AssertionError):
        conv.conv2d(x[0], kernel, 2)
    with pytest.raises(ValueError, match="kernel 3 .* stride 4"):
        conv.conv2d_transpose(x, kernel, 4)
    with pytest.raises(ValueError, match="image of 2 x 6 is smaller than the kernel 3"):
        conv.conv2d(x[:, :2], kernel, 2)


def test_ensemble_of_kernels_by_vmap():
    x, kernel, bias = _inputs(6, 6, 4)
    kernels = jnp.stack([kernel, 2 * kernel])
    for ours in (conv._matmul_conv, conv._matmul_conv_transpose):

        def loss(kernel, ours=ours):
            return (ours(x, kernel, bias, 2, jax.nn.relu) ** 2).sum()

        rows = jax.vmap(jax.grad(loss))(kernels)
        for kernel_, row in zip(kernels, rows, strict=True):
            np.testing.assert_allclose(row, jax.grad(loss)(kernel_), rtol=1e-4, atol=1e-3)
