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


@pytest.mark.parametrize(("kind", "width"), [("rssm", Z + U), ("ssm", Z), ("rnn", Z + U), ("drnn", U)])
def test_features_are_the_sample_and_the_belief_or_the_decoders_state(kind, width):
    model, learner = rssm.make(configured(kind=kind), SPEC)
    params = random_params(learner)
    assert ("gru" in params) == (kind in ("rssm", "rnn"))

    @jax.jit
    def imagined(params):
        state = model.imagine(params, KEY, model.initial(params, B), jnp.ones((B, 2)))
        return state, model.features(params, state), model.discount(params, state)

    state, features, discount = imagined(params)
    parts = [state.belief] if kind == "drnn" else [state.sample, state.belief]
    np.testing.assert_array_equal(features, np.concatenate(parts, -1))
    assert features.shape == (B, width)
    assert (np.asarray(state.sample) == np.asarray(state.mean)).all() == (kind == "rnn")
    np.testing.assert_array_equal(discount, np.ones(B))


@pytest.fixture(scope="module")
def drnn():
    """(model, random parameters, a state, actions [B, A], images [B, X, Y, C])."""
    model, learner = rssm.make(configured(kind="drnn"), SPEC)
    batch, rng = chunks(), np.random.default_rng(0)
    params = random_params(learner)
    start = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), jax.eval_shape(lambda: model.initial(params, B))
    )
    return model, params, start, batch.prev_action[:, 1], batch.obs[:, 1]


def test_the_drnns_prior_is_its_posterior_of_an_embedding_of_zeros(drnn):
    """An encoder without weights gives such an embedding of every image."""
    model, params, start, action, obs = drnn

    @jax.jit
    def look(params):
        embed = model.encode(params, obs)
        seen, prior = model.observe(params, KEY, start, action, embed, np.zeros(B, bool))
        return seen, prior, model.imagine(params, KEY, start, action)

    seen, prior, imagined = look(params | dict(encoder=jax.tree.map(np.zeros_like, params["encoder"])))
    jax.tree.map(np.testing.assert_array_equal, seen, imagined)
    jax.tree.map(np.testing.assert_array_equal, prior, (seen.mean, seen.std))
    seen, prior_again, imagined_again = look(params)
    jax.tree.map(np.testing.assert_array_equal, (prior, imagined), (prior_again, imagined_again))
    for one, other in zip(jax.tree.leaves(seen), jax.tree.leaves(imagined), strict=True):
        assert (one != other).any(axis=-1).all()


def test_heads_of_the_drnn_see_its_decoders_state_alone(drnn):
    """What else is in the state they see one step later."""
    model, params, start, action, _ = drnn

    @jax.jit
    def gradients(start):
        def total(state):
            return sum(jnp.sin(head(params, state)).sum() for head in (model.features, model.reward, model.decode))

        later = jax.grad(lambda state: total(model.imagine(params, KEY, state, action)))
        return jax.grad(total)(start), later(start)

    names = ("mean", "std", "sample", "belief", "encoder")
    now, later = ({name: bool(getattr(grad, name).any()) for name in names} for grad in gradients(start))
    assert now == dict(mean=False, std=False, sample=False, belief=True, encoder=False)
    assert later == dict(mean=False, std=False, sample=True, belief=True, encoder=True)


def counted(kind):
    """Numbers of parameters by module, at the sizes of appendix A with 64x64 images and 6 actions."""
    spec = EnvSpec(jax.ShapeDtypeStruct((64, 64, 3), np.uint8), ActionSpec(6, False, -1.0, 1.0))
    _, learner = rssm.make(rssm.RSSMConfig(kind=kind), spec)
    params = jax.eval_shape(learner.init, KEY).params
    return {name: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for name, tree in params.items()}


def test_parameter_count_of_the_drnn():
    of_rssm = counted("rssm")
    assert counted("drnn") == dict(
        encoder=of_rssm["encoder"],
        decoder=of_rssm["decoder"] - 30 * 1024,  # no sample among the features
        embedding=1024 * 600,
        encoder_gru=3 * ((6 + 30) * 200 + 200 * 200 + 200),
        latent=((200 + 30 + 200) * 200 + 200) + (200 * 60 + 60),
        decoder_gru=3 * (30 * 200 + 200 * 200 + 200),
        reward=of_rssm["reward"] - 30 * 200,
    )


def test_parameter_count_of_the_paper():
    """Appendix A: kernels and biases of every layer, one layer a line."""
    assert counted("rssm") == dict(
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
