"""The image networks have the papers' shapes and are what a plain chain of convolutions is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.nets import conv
from wmjax.nets.images import DECODER_KERNELS, ImageDecoder, ImageEncoder, decoder_kernels, encoder_features
from wmjax.types import UsageError


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


def _count(params):
    return sum(p.size for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "size, widths, features", [(64, (32, 64, 128, 256), 1024), (32, (16, 32, 64), 256), (16, (8, 16), 64)]
)
def test_image_networks_reach_their_sizes(size, widths, features):
    encoder, decoder = ImageEncoder(widths), ImageDecoder((size, size, 3), widths[-2::-1], features)
    embed, params = jax.eval_shape(encoder.init_with_output, jax.random.key(0), jnp.zeros((5, size, size, 3)))
    assert embed.shape == (5, features) and encoder_features((size, size, 3), widths) == features
    assert set(params["params"]["Conv_0"]) == {"kernel", "bias"}
    image, _ = jax.eval_shape(decoder.init_with_output, jax.random.key(0), jnp.zeros((5, 30)))
    assert image.shape == (5, size, size, 3)


@pytest.mark.parametrize("size", DECODER_KERNELS)
def test_decoder_kernels_reach_their_size(size):
    reached = 1
    for kernel in decoder_kernels((size, size, 3)):
        reached = (reached - 1) * 2 + kernel
    assert reached == size


def test_paper_parameter_counts():
    # k*k*C*D + D a layer: 1,568 + 32,832 + 131,200 + 524,544
    params = jax.eval_shape(ImageEncoder().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert _count(params) == 690_144
    # linear 230*1024 + 1024 = 236,544, then 3,276,928 + 204,864 + 73,760 + 3,459
    params = jax.eval_shape(ImageDecoder((64, 64, 3)).init, jax.random.key(0), jnp.zeros((1, 230)))
    assert _count(params) == 3_795_555


def test_activations_lie_between_the_layers():
    """The networks equal a plain chain of XLA convolutions and ReLUs."""
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    encoder, decoder = ImageEncoder((8, 16)), ImageDecoder((16, 16, 3), (8,), 64)
    params = encoder.init(jax.random.key(2), x)["params"]
    y = x
    for name in ("Conv_0", "Conv_1"):
        y = jax.nn.relu(conv._xla_conv(y, params[name]["kernel"], params[name]["bias"], 2, conv.identity))
    embed = encoder.apply({"params": params}, x)
    np.testing.assert_allclose(embed, y.reshape(2, 64), atol=1e-5)

    params = decoder.init(jax.random.key(3), embed)["params"]
    y = (embed @ params["Dense_0"]["kernel"])[:, None, None]
    first, last = params["ConvTranspose_0"], params["ConvTranspose_1"]
    y = jax.nn.relu(conv._xla_conv_transpose(y, first["kernel"], first["bias"], 2, conv.identity))
    y = conv._xla_conv_transpose(y, last["kernel"], last["bias"], 2, conv.identity)
    np.testing.assert_allclose(decoder.apply({"params": params}, embed), y, atol=1e-5)


def test_compute_dtype_keeps_parameters_float32():
    encoder, decoder = (
        ImageEncoder((8, 16), dtype=jnp.bfloat16),
        ImageDecoder((16, 16, 3), (8,), 64, dtype=jnp.bfloat16),
    )
    embed, params = encoder.init_with_output(jax.random.key(0), jnp.ones((2, 16, 16, 3)))
    image, decoder_params = decoder.init_with_output(jax.random.key(0), embed)
    assert embed.dtype == image.dtype == jnp.bfloat16
    assert {p.dtype for p in jax.tree.leaves((params, decoder_params))} == {jnp.dtype("float32")}


def test_rows_are_independent():
    x = jax.random.normal(jax.random.key(1), (3, 16, 16, 3))
    encoder = ImageEncoder((8, 16))
    params = encoder.init(jax.random.key(2), x)
    gradient = jax.grad(lambda x: encoder.apply(params, x)[1].sum())(x)
    assert np.abs(gradient[1]).max() > 0
    np.testing.assert_array_equal(gradient[jnp.array([0, 2])], 0)


def test_unknown_image_sizes_are_usage_errors():
    for shape in ((48, 48, 3), (64, 32, 3)):
        with pytest.raises(UsageError, match=rf"{shape[0]}x{shape[1]} .*16, 32, 64, 96, 128") as error:
            decoder_kernels(shape)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="32x32 is too small for 4"):
        encoder_features((32, 32, 3))
    with pytest.raises(UsageError, match="give 2 widths"):
        ImageDecoder((32, 32, 3)).init(jax.random.key(0), jnp.zeros((1, 8)))
