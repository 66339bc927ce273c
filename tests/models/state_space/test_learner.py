"""Environment models' learner: what it starts from, weighs and clips, its chunks of jumpy models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.fakes import SPEC, randomised
from tests.tiny_state_space import KEY, B, batch_of, configured
from wmjax.models import state_space
from wmjax.models.state_space.learner import score
from wmjax.models.state_space.model import MapState, init_params, make_model
from wmjax.types import ActionSpec, EnvSpec, UsageError


def test_a_model_with_a_background_begins_at_it():
    """Whatever the state, if the last layer is 0; from there everything learns, the decoder's last layer first."""
    config = configured(contrast=3.0, last_layer_scale=0.0)
    model, learner = state_space.make(config, SPEC)
    image = np.random.default_rng(0).uniform(0.01, 0.99, SPEC.obs_shape).astype(np.float32)
    state = learner.init(KEY)
    state = state.replace(params=state_space.with_background(state.params, image))
    last = jax.tree.map(lambda x: jax.random.normal(KEY, x.shape), model.initial(state.params, B))
    drawn = jax.nn.sigmoid(jax.jit(model.decode)(state.params, last))
    np.testing.assert_allclose(drawn, np.broadcast_to(image, drawn.shape), atol=1e-5)
    update, begun = jax.jit(learner.update), state.params
    for _ in range(3):
        state = update(state, KEY, batch_of())[0]
    for (path, old), new in zip(jax.tree.leaves_with_path(begun), jax.tree.leaves(state.params), strict=True):
        assert np.isfinite(new).all() and (old != new).any(), jax.tree_util.keystr(path)
    learnt = jax.jit(jax.grad(lambda params: model.encode(params, batch_of().obs[:, 0]).sum()))(state.params)
    assert (learnt["background"] == 0).all(), "it learns from what is drawn alone"
    with pytest.raises(KeyError, match="background"):
        state_space.with_background(state_space.make(configured(), SPEC)[1].init(KEY).params, image)
    with pytest.raises(AssertionError):
        state_space.with_background(begun, image[..., :1])


def test_the_last_layer_begins_as_scaled():
    """And nothing else does."""
    one, half = (init_params(KEY, configured(last_layer_scale=scale), SPEC) for scale in (1.0, 0.5))
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(half), strict=True):
        is_last = jax.tree_util.keystr(path).startswith("['decoder']['params']['fine']['Conv_2']")
        np.testing.assert_array_equal(y, x / 2 if is_last else x)


def test_the_loss_has_the_kl_at_its_weight():
    _, learner = state_space.make(configured(kl_anneal_target=0.5), SPEC)
    state, update = jax.jit(learner.init)(KEY), jax.jit(learner.update)
    for weight in (1e-8, 1e-2, 1):
        progress = state.annealing.replace(kl_weight=jnp.float32(weight))
        after, metrics = update(state.replace(annealing=progress), KEY, batch_of())
        bound = metrics["image"] + metrics["reward"]
        np.testing.assert_allclose(metrics["loss"], bound + weight * metrics["kl"], rtol=1e-5)
        np.testing.assert_allclose(metrics["kl_weight"], weight, rtol=1e-4)
        assert after.annealing.mean_image.std() > 0  # and the progress is followed


@pytest.mark.parametrize("settings", [dict(), dict(kind="ar", kl_anneal_target=0.5)])
def test_without_annealing_or_latents_the_loss_is_the_bound(settings):
    _, learner = state_space.make(configured(**settings), SPEC)
    shapes, metrics = jax.eval_shape(learner.update, jax.eval_shape(learner.init, KEY), KEY, batch_of())
    assert shapes.annealing is None and "kl_weight" not in metrics


def test_a_jumpy_model_learns_from_the_same_chunks():
    """Its terms are those of a plain model whose environment makes two steps at a time."""
    jumpy, steps = configured(jump=2), 2
    model, learner = state_space.make(jumpy, SPEC)
    batch = batch_of(state_space.rows_of(jumpy, steps))
    assert batch.reward.shape[1] == 9 and state_space.model_action_size(jumpy, SPEC.action) == 4
    params = randomised(jax.eval_shape(learner.init, KEY).params, 0.12)
    pairs = np.zeros((B, 5, 4), np.float32)
    pairs[:, 1:] = np.concatenate([batch.prev_action[:, 1::2], batch.prev_action[:, 2::2]], axis=-1)
    sums = np.zeros((B, 5), np.float32)
    sums[:, 1:] = batch.reward[:, 1::2] + batch.reward[:, 2::2]
    wide = EnvSpec(jax.ShapeDtypeStruct(SPEC.obs_shape, SPEC.obs_dtype), ActionSpec(4, False, -1.0, 1.0))
    other = batch.replace(prev_action=pairs, obs=batch.obs[:, ::2], reward=sums)

    def terms(config, spec, batch):
        return jax.jit(lambda x: score(*make_model(config, spec), config, spec.action, params, KEY, x)[0])(batch)

    one, two = terms(jumpy, SPEC, batch), terms(configured(), wide, other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one, two)
    assert one["image"].shape == (B, steps)
    state, metrics = jax.jit(learner.update)(jax.jit(learner.init)(KEY), KEY, batch)
    assert all(metrics["grad_finite"].values()) and metrics["grad_norm"] > 0 and int(state.updates) == 1
    imagined = jax.eval_shape(model.imagine, params, KEY, model.initial(params, B), jnp.zeros((B, 4)))
    assert isinstance(imagined, MapState)


def test_refuses_chunks_that_do_not_fit():
    _, learner = state_space.make(configured(jump=3), SPEC)
    with pytest.raises(UsageError, match="9 rows of a sequence.* jumps 3 steps") as error:
        jax.eval_shape(learner.update, jax.eval_shape(learner.init, KEY), KEY, batch_of(9))
    assert "\n" not in str(error.value)


def test_gradients_have_clipped_norms():
    """Adam's memory of gradients, after one update, is a tenth of what it was given."""
    _, learner = state_space.make(configured(kind="dssm_det", clip_norm=0.5), SPEC)
    state, metrics = jax.jit(learner.update)(learner.init(KEY), KEY, batch_of())
    assert metrics["grad_norm"] > 1
    assert optax.global_norm(optax.tree.get(state.opt_state, "mu")) == pytest.approx(0.05, rel=1e-4)
