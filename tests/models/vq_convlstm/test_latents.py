"""The latents of the paper's ablations (section 4.3, Q2, Q4 and Q5) against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import DISCRETE_SPEC, normal, randomised
from tests.tiny_vq import configured
from tests.walks import walks
from wmjax.models.vq_convlstm import make, make_updates
from wmjax.models.vq_convlstm.latents import make_latents
from wmjax.models.vq_convlstm.model import make_draw, make_modules
from wmjax.ops.axes import fold

KEY = jax.random.key(0)


def random_params(settings):
    """With no zeros; the statistics of batch norm are as at the beginning."""
    shapes = jax.eval_shape(make(settings, DISCRETE_SPEC)[1].init, KEY).params
    running = tuple(
        (np.zeros(mean.shape, np.float32), np.ones(var.shape, np.float32)) for mean, var in shapes["running"]
    )
    return randomised(shapes, 0.5) | dict(running=running)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_grids_come_back_as_they_were(dimensions):
    for latent, depth in (("discrete", 3), ("continuous", 1)):
        latents = make_latents(configured(latent=latent, dimensions=dimensions), (4, 5))
        x = normal(2, 4, 5, depth)
        moments = x if latent == "discrete" else np.concatenate([x, np.full_like(x, -100)], axis=-1)
        params = dict(codebook=None)
        embedding = latents.embed(moments)
        sample = embedding if latent == "discrete" else latents.posterior_sample(params, KEY, embedding)
        assert sample.shape[1:] == latents.shape
        np.testing.assert_allclose(latents.grid(sample), x, atol=1e-6)
    assert make_latents(configured(dimensions=1), (4, 5)).shape == (20, 1, 3)  # rows below each other
    assert make_latents(configured(latent="continuous", dimensions=1), (4, 5)).shape == (1, 1, 20)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_continuous_latents_equal_numpy(dimensions):
    latents = make_latents(configured(latent="continuous", dimensions=dimensions), (2, 3))
    seen, predicted = latents.embed(normal(4, 2, 3, 2)), latents.embed(normal(4, 2, 3, 2, seed=1))
    (m, v), (n, w) = (np.split(np.float64(x), 2, axis=-1) for x in (seen, predicted))
    kl = 0.5 * (np.exp(v - w) + (m - n) ** 2 / np.exp(w) - 1 + w - v).sum((1, 2, 3))
    np.testing.assert_allclose(latents.divergence({}, predicted, seen), kl, rtol=1e-4)
    latent, nats, extra, _ = latents.autoencode({}, KEY, seen)
    np.testing.assert_allclose(nats, 0.5 * (np.exp(v) + m**2 - 1 - v).sum((1, 2, 3)), rtol=1e-4)
    assert extra == 0 and latent.shape == m.shape
    many = jax.vmap(lambda key: latents.prior_sample({}, key, seen))(jax.random.split(KEY, 20_000))
    np.testing.assert_allclose(many.mean(0), m, atol=0.06)
    np.testing.assert_allclose(many.std(0), np.exp(v / 2), rtol=0.05)


def test_a_sequence_of_codes_is_drawn_in_reading_order():
    """One by one, each given those before it: as a plain loop draws them."""
    settings = configured(predictor="autoregressive")
    params = random_params(settings)
    modules, latents = make_modules(settings, DISCRETE_SPEC.obs_shape)
    hidden, action = normal(2, 4, 4, 4), np.eye(3, dtype=np.float32)[:2]
    draw = jax.jit(make_draw(settings, modules, latents))
    drawn = draw(params, KEY, hidden, action)
    head = jax.jit(lambda latent: modules["latent_head"].apply(params["latent_head"], hidden, action, latent))
    latent = np.zeros((2, 4, 4, 3), np.float32)
    for at, (i, j) in enumerate(np.ndindex(4, 4)):
        codes = jax.random.categorical(jax.random.fold_in(KEY, at), head(latent)[:, i, j])
        latent[:, i, j] = params["codebook"].vectors[codes]
    np.testing.assert_array_equal(drawn, latent)
    changed = normal(2, 4, 4, 4, seed=5)
    assert (draw(params, KEY, changed, action) != drawn).any()


def test_only_one_cell_is_left_with_a_pixel_cnn():
    model, learner = make(configured(predictor="autoregressive"), DISCRETE_SPEC)
    params = jax.eval_shape(learner.init, KEY).params
    assert list(params["dynamics"]["params"]) == ["cell_0"]


def test_patches_do_not_overlap():
    """With kernels of 2 a cell of the grid sees 4 x 4 pixels of its own, and they are drawn from it alone."""
    settings = configured(encoder_kernel=2)
    modules, latents = make_modules(settings, DISCRETE_SPEC.obs_shape)
    params = random_params(settings)
    x = np.random.default_rng(0).uniform(size=(1, *DISCRETE_SPEC.obs_shape)).astype(np.float32)
    size = x.shape[1] // 4
    encode = lambda x: modules["encoder"].apply(params["encoder"], x, params["running"])[0].sum((0, 3))
    seen = np.abs(jax.jit(jax.jacobian(encode))(x))[:, :, 0].sum(-1) > 0  # [G, G, X, Y]
    decode = lambda z: modules["decoder"].apply(params["decoder"], z).sum((0, 3))
    drawn = np.abs(jax.jit(jax.jacobian(decode))(normal(1, size, size, 3)))[:, :, 0].sum(-1) > 0  # [X, Y, G, G]
    for i, j in np.ndindex(size, size):
        own = np.zeros(x.shape[1:3], bool)
        own[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = True
        assert not seen[i, j][~own].any() and seen[i, j][own].all()
        assert not drawn[:, :, i, j][~own].any() and drawn[:, :, i, j][own].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        dict(latent="continuous"),
        dict(predictor="autoregressive"),
        dict(dimensions=1, encoder_kernel=2, likelihood="bernoulli", restart_below=0.1),
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_every_kind_learns_a_small_world(settings):
    """Both losses fall far below where they began; the paper's own kind learns its world in `test_learner.py`."""
    spec, batch = walks(8, 8, side=4, reward=1.0)
    settings = configured(learning_rate=3e-3, dynamics_learning_rate=1e-2, cells=(8, 8), **settings)
    _, learner = make(settings, spec)
    updates = make_updates(settings, spec)
    state, batch = jax.jit(learner.init)(KEY), jax.tree.map(jnp.asarray, batch)

    def train(update, data, state, count):
        step = jax.jit(lambda state, keys: jax.lax.scan(lambda state, key: update(state, key, data), state, keys))
        return step(state, jax.random.split(KEY, count))

    state, seen = train(updates.autoencoder, fold(batch.obs), state, 120)
    state, predicted = train(updates.dynamics, batch, state, 100)
    error = -seen["elbo"]
    assert error[-10:].mean() - error.min() < 0.3 * (error[:3].mean() - error.min())
    loss = predicted["latent_loss"]
    assert loss[-10:].mean() < 0.5 * loss[:3].mean()
    assert all(x.all() for found in (predicted, seen) for x in found["grad_finite"].values())
