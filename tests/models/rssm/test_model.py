"""PlaNet's models: what they see, what their features are, and how many parameters they have."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import SPEC
from tests.tiny_rssm import KEY, B, T, U, Z, chunks, configured, random_params
from wmjax import imagine
from wmjax.models import rssm
from wmjax.types import ActionSpec, EnvSpec


def test_the_prior_does_not_see_the_image_it_predicts():
    model, learner = rssm.make(configured(), SPEC)
    params, batch = random_params(learner), chunks()
    embed = np.random.default_rng(0).normal(size=(B, T, 5)).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(embed):
        start = model.initial(params, B)
        inputs = dict(prev_action=batch.prev_action, embed=embed, is_first=batch.is_first)
        mean, std = imagine.filter(model, params, KEY, start, **inputs)[2]
        return jnp.sum(jnp.sin(mean[:, 2])) + jnp.sum(jnp.sin(std[:, 2]))

    np.testing.assert_array_equal(np.abs(gradient(embed)).sum((0, 2)) > 0, [1, 1, 0, 0, 0, 0])


def test_the_encoder_sees_five_bits_without_noise():
    model, learner = rssm.make(configured(), SPEC)
    obs = np.zeros((3, 16, 16, 3), np.uint8)
    obs[1], obs[2] = 7, 8
    embed = jax.jit(model.encode)(random_params(learner), obs)
    np.testing.assert_array_equal(embed[0], embed[1])
    assert (embed[0] != embed[2]).any()


@pytest.mark.parametrize(("kind", "width"), [("rssm", Z + U), ("ssm", Z), ("rnn", Z + U)])
def test_features_are_the_sample_and_the_belief(kind, width):
    model, learner = rssm.make(configured(kind=kind), SPEC)
    params = random_params(learner)
    assert ("gru" in params) == (kind != "ssm")

    @jax.jit
    def imagined(params):
        state = model.imagine(params, KEY, model.initial(params, B), jnp.ones((B, 2)))
        return state, model.features(params, state), model.discount(params, state)

    state, features, discount = imagined(params)
    np.testing.assert_array_equal(features, np.concatenate([state.sample, state.belief], -1))
    assert features.shape == (B, width)
    assert (np.asarray(state.sample) == np.asarray(state.mean)).all() == (kind == "rnn")
    np.testing.assert_array_equal(discount, np.ones(B))


def test_parameter_count_of_the_paper():
    """Appendix A with 64x64 images and 6 actions: kernels and biases of every layer, one layer a line."""
    spec = EnvSpec(jax.ShapeDtypeStruct((64, 64, 3), np.uint8), ActionSpec(6, False, -1.0, 1.0))
    _, learner = rssm.make(rssm.RSSMConfig(), spec)
    params = jax.eval_shape(learner.init, KEY).params
    count = {name: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for name, tree in params.items()}
    assert count == dict(
        encoder=(4 * 4 * 3 * 32 + 32) + (4 * 4 * 32 * 64 + 64) + (4 * 4 * 64 * 128 + 128) + (4 * 4 * 128 * 256 + 256),
        decoder=(230 * 1024 + 1024)
        + (5 * 5 * 1024 * 128 + 128)
        + (5 * 5 * 128 * 64 + 64)
        + (6 * 6 * 64 * 32 + 32)
        + (6 * 6 * 32 * 3 + 3),
        input=(30 + 6) * 200 + 200,
        gru=3 * (200 * 200 + 200 * 200 + 200),
        prior=(200 * 200 + 200) + (200 * 60 + 60),
        posterior=((200 + 1024) * 200 + 200) + (200 * 60 + 60),
        reward=(230 * 200 + 200) + (200 * 200 + 200) + (200 * 1 + 1),
    )
