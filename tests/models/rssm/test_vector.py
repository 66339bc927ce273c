"""Vectors beside images, in plain numpy: the embedding, the likelihood, the loss; and nothing of it without them."""

import functools

import jax
import numpy as np
import pytest

from tests.fakes import SPEC
from tests.tiny_rssm import KEY, B, T, chunks, configured, random_params
from wmjax import imagine
from wmjax.models import rssm
from wmjax.models.rssm.learner import model_loss
from wmjax.ops.axes import fold
from wmjax.types import UsageError

V, UNITS = 3, 4
WITH = SPEC._replace(obs=dict(image=SPEC.obs, vector=jax.ShapeDtypeStruct((V,), np.float32)))
CONFIG = configured(vector_units=UNITS, vector_scale=0.6, free_nats=0.0)


@functools.cache
def scored():
    """(model, parameters, batch, metrics, gradients, features [B * T, F]) of one loss."""
    model, learner = rssm.make(CONFIG, WITH)
    params, batch = random_params(learner), chunks()
    vector = np.random.default_rng(1).normal(size=(B, T, V)).astype(np.float32)
    batch = batch.replace(obs=dict(image=batch.obs, vector=vector))

    @jax.jit
    def score(params, batch):
        loss = functools.partial(model_loss, model, CONFIG, SPEC.action)
        gradients, metrics = jax.grad(loss, has_aux=True)(params, KEY, batch)
        _, states, _ = imagine.filter_steps(model, params, jax.random.split(KEY, 3)[1], batch, SPEC.action)
        return metrics, gradients, model.features(params, fold(states))

    return model, params, batch, *jax.device_get(score(params, batch))


def mlp(params, x):
    layers = [params["params"][f"Dense_{i}"] for i in range(3)]
    for layer in layers[:2]:
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
    return x @ layers[2]["kernel"] + layers[2]["bias"]


def test_the_embedding_holds_the_vector_behind_the_image():
    model, params, batch, *_ = scored()
    image, one = batch.obs["image"][:, 0], batch.obs["vector"][:, 0]
    seen, other = (np.asarray(model.encode(params, dict(image=image, vector=x))) for x in (one, 2 * one))
    kernel = params["posterior"]["params"]["observed"]["kernel"][-UNITS:]
    encoder = params["vector_encoder"]
    np.testing.assert_allclose(other - seen, (mlp(encoder, 2 * one) - mlp(encoder, one)) @ kernel, rtol=1e-4, atol=1e-6)
    assert np.abs(other - seen).max() > 1e-3


def test_the_loss_has_a_unit_gaussian_of_the_vector():
    _, params, batch, metrics, gradients, features = scored()
    error = mlp(params["vector_decoder"], features) - batch.obs["vector"].reshape(B * T, V)
    np.testing.assert_allclose(metrics["vector_loss"], 0.5 * np.square(error).sum(-1).mean(), rtol=1e-4)
    parts = dict(image_loss=0.01, vector_loss=0.6, reward_loss=2.0, kl=0.7)
    np.testing.assert_allclose(metrics["loss"], sum(scale * metrics[name] for name, scale in parts.items()), rtol=1e-5)
    for name in ("vector_encoder", "vector_decoder"):
        assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradients[name])), name


def test_the_other_networks_are_those_of_a_model_without():
    plain, more = (jax.eval_shape(rssm.make(CONFIG, spec)[1].init, KEY).params for spec in (SPEC, WITH))
    assert set(more) - set(plain) == {"vector_encoder", "vector_decoder"}
    assert all(plain[name] == more[name] for name in set(plain) - {"posterior"})
    drnn = rssm.make(configured(kind="drnn", vector_units=UNITS), WITH)[1]
    assert "vector_encoder" in jax.eval_shape(drnn.init, KEY).params


@pytest.mark.parametrize("settings", [dict(vector_units=0), dict(vector_scale=-1.0)])
def test_refusals(settings):
    with pytest.raises(UsageError, match=f"model {next(iter(settings))}"):
        configured(**settings)
