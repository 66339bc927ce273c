"""Environment models' learner: what it starts from, weighs and clips, jumpy chunks, a small world it overfits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.fakes import SPEC, normal, randomised
from tests.jaxprs import products
from tests.tiny_state_space import KEY, B, batch_of, configured
from tests.walks import walks
from wmjax.models import state_space
from wmjax.models.state_space.learner import score, with_padded_context
from wmjax.models.state_space.model import MapState, init_params, make_model
from wmjax.types import ActionSpec, EnvSpec, UsageError

ODD = SPEC._replace(obs=jax.ShapeDtypeStruct((15, 13, 3), np.uint8))  # is padded
CHUNKS = batch_of(spec=ODD)


@pytest.fixture(scope="module")
def learning():
    """(model, first state, jitted update) of a model with a background, an annealed KL and a low limit of gradients."""
    config = configured(contrast=3.0, last_layer_scale=0.0, kl_anneal_target=0.5, clip_norm=0.5)
    model, learner = state_space.make(config, ODD)
    return model, jax.jit(learner.init)(KEY), jax.jit(learner.update)


def at_weight(state, weight):
    return state.replace(annealing=state.annealing.replace(kl_weight=jnp.float32(weight)))


def test_a_model_with_a_background_begins_at_it(learning):
    """Whatever the state, if the last layer is 0; from there everything learns, the decoder's last layer first."""
    model, state, update = learning
    image = np.random.default_rng(0).uniform(0.01, 0.99, ODD.obs_shape).astype(np.float32)
    state = at_weight(state.replace(params=state_space.with_background(state.params, image)), 1)
    last = jax.tree.map(lambda x: normal(*x.shape), model.initial(state.params, B))
    drawn = jax.nn.sigmoid(jax.jit(model.decode)(state.params, last))
    np.testing.assert_allclose(drawn, np.broadcast_to(image, drawn.shape), atol=1e-5)
    begun = state.params
    for _ in range(3):
        state = update(state, KEY, CHUNKS)[0]
    for (path, old), new in zip(jax.tree.leaves_with_path(begun), jax.tree.leaves(state.params), strict=True):
        assert np.isfinite(new).all() and (old != new).any(), jax.tree_util.keystr(path)
    learnt = jax.jit(jax.grad(lambda params: model.encode(params, CHUNKS.obs[:, 0]).sum()))(state.params)
    assert (learnt["background"] == 0).all(), "it learns from what is drawn alone"
    with pytest.raises(KeyError, match="background"):
        state_space.with_background({name: x for name, x in begun.items() if name != "background"}, image)
    with pytest.raises(AssertionError):
        state_space.with_background(begun, image[..., :1])


def test_the_last_layer_begins_as_scaled():
    """And nothing else does."""
    one, half = jax.jit(lambda key: [init_params(key, configured(last_layer_scale=x), SPEC) for x in (1.0, 0.5)])(KEY)
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(half), strict=True):
        is_last = jax.tree_util.keystr(path).startswith("['decoder']['params']['fine']['Conv_2']")
        np.testing.assert_array_equal(y, x / 2 if is_last else x)


def test_the_loss_has_the_kl_at_its_weight(learning):
    _, state, update = learning
    for weight in (1e-8, 1e-2, 1):
        after, metrics = update(at_weight(state, weight), KEY, CHUNKS)
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
    """Its terms and their gradients are those of a plain model whose environment makes two steps at a time."""
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
        """((loss, terms), gradients)."""

        def loss(params):
            found = score(*make_model(config, spec), config, spec.action, params, KEY, batch)[0]
            return sum(x.mean() for x in found.values()), found

        return jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))

    (one, gradients), (two, others) = terms(jumpy, SPEC, batch), terms(configured(), wide, other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one, two)
    assert one[1]["image"].shape == (B, steps)
    for (path, x), y in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(others), strict=True):
        assert np.isfinite(x).all() and x.any(), jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4 * np.abs(y).max())
    state = jax.eval_shape(learner.init, KEY)
    assert jax.eval_shape(learner.update, state, KEY, batch)[0] == state
    imagined = jax.eval_shape(model.imagine, params, KEY, model.initial(params, B), jnp.zeros((B, 4)))
    assert isinstance(imagined, MapState)


def test_bfloat16_is_of_the_modules_alone():
    """Products have bfloat16 operands; parameters, gradients, states, losses are float32 and nearly the same."""
    batch, found = batch_of(4), []
    for dtype in ("float32", "bfloat16"):
        config = configured(kind="dssm_vae", contrast=3.0, compute_dtype=dtype)
        model, parts = make_model(config, SPEC)
        params = randomised(jax.eval_shape(lambda c=config: init_params(KEY, c, SPEC)), 0.12)

        def loss(params, config=config, model=model, parts=parts):
            terms, *states = score(model, parts, config, SPEC.action, params, KEY, batch)
            return sum(x.mean() for x in terms.values()), (terms, states)

        both = jax.value_and_grad(loss, has_aux=True)
        operands = {x.aval.dtype for eqn in products(jax.make_jaxpr(both)(params).jaxpr) for x in eqn.invars}
        assert operands == {jnp.dtype(dtype)}
        found.append(jax.device_get(jax.jit(both)(params)))
        assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    ((exact, (terms, _)), exact_gradients), ((rounded, (rounded_terms, _)), gradients) = found
    assert rounded != exact
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0.03), rounded_terms, terms)
    error = optax.global_norm(jax.tree.map(np.subtract, gradients, exact_gradients))
    assert error < 0.1 * optax.global_norm(exact_gradients)


def test_some_contexts_begin_as_episodes_do():
    """As often as asked, at every row after the first equally often; later images are as they were."""
    rows, jump = 4000, 2
    obs = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None, None, None], (rows, 8, 1, 1, 1))
    pad = jax.jit(lambda key: with_padded_context(key, configured(jump=jump, pad_context=0.4), obs))
    times = np.asarray(pad(KEY))[..., 0, 0, 0]
    begun = times[:, 0]
    np.testing.assert_array_equal(times, np.maximum(np.arange(8)[None], begun[:, None]))
    np.testing.assert_allclose(np.bincount(begun, minlength=8) / rows, [0.6, *[0.1] * 4, 0, 0, 0], atol=0.02)
    always = jax.jit(lambda key: with_padded_context(key, configured(pad_context=1.0), obs))(KEY)
    np.testing.assert_allclose(np.bincount(np.asarray(always)[:, 0, 0, 0, 0]) / rows, [0, 0.5, 0.5], atol=0.03)


def test_contexts_are_padded_in_training_alone():
    """The loss of one step is that of some chunks padded by hand, each in one of two ways; no score ever is."""
    config = configured(kind="dssm_det", pad_context=1.0)  # nothing is drawn but how chunks are padded
    _, learner = state_space.make(config, SPEC)
    state, batch = jax.jit(learner.init)(KEY), batch_of(4)
    state = state.replace(params=randomised(state.params, 0.3))
    update, score = jax.jit(learner.update), jax.jit(state_space.make_score(config, SPEC), static_argnums=3)

    def bound(*begun):
        times = np.maximum(np.arange(4)[None], np.array(begun)[:, None])[..., None, None, None]
        padded = batch.replace(obs=np.take_along_axis(batch.obs, times, axis=1))
        return float(-score(state.params, KEY, padded, 1)["bound"].mean())

    by_hand = np.array([bound(*begun) for begun in itertools.product((1, 2), (1, 2))])
    losses = [float(update(state, jax.random.key(i), batch)[1]["loss"]) for i in range(6)]
    nearest = [np.abs(by_hand - loss).argmin() for loss in losses]
    np.testing.assert_allclose(losses, by_hand[nearest], rtol=1e-6)
    assert len(set(nearest)) > 1 and np.abs(np.diff(np.sort([*by_hand, bound(0, 0)]))).min() > 1e-5 * by_hand[0]


def test_refuses_chunks_that_do_not_fit():
    _, learner = state_space.make(configured(jump=3), SPEC)
    with pytest.raises(UsageError, match="9 rows of a sequence.* jumps 3 steps") as error:
        jax.eval_shape(learner.update, jax.eval_shape(learner.init, KEY), KEY, batch_of(9))
    assert "\n" not in str(error.value)


def test_gradients_have_clipped_norms(learning):
    """Adam's memory of gradients, after one update, is a tenth of what it was given."""
    _, state, update = learning
    after, metrics = update(state, KEY, CHUNKS)
    assert metrics["grad_norm"] > 1
    assert optax.global_norm(optax.tree.get(after.opt_state, "mu")) == pytest.approx(0.05, rel=1e-4)


def best_constant_nats(obs):
    """KL of the images and the one that is best for all, which is their mean."""
    x = obs.reshape(-1, 512) / 255
    q = np.clip(x.mean(axis=0), 1e-9, 1 - 1e-9)
    return -np.where(x > 0, np.log(q), np.log1p(-q)).sum(axis=1).mean()  # all pixels are 0 or 1


ALSO = [pytest.param(kind, marks=pytest.mark.slow) for kind in state_space.KINDS if kind != "sssm"]


@pytest.mark.parametrize("kind", ["sssm", *ALSO])
def test_learns_a_small_world_exactly(kind):
    """All is told by the context and the actions; a vae's latents tell what it does not know of them."""
    spec, batch = walks(8, 6, side=8, reward=2.0)
    widths = dict(channels=16, encoder_width=16, decoder_width=16)
    config = configured(kind=kind, **widths, learning_rate=3e-3, clip_norm=1e9)
    _, learner = state_space.make(config, spec)
    batch = jax.tree.map(jnp.asarray, batch)
    train = jax.jit(lambda state, keys: jax.lax.scan(lambda state, key: learner.update(state, key, batch), state, keys))
    _, metrics = train(jax.jit(learner.init)(KEY), jax.random.split(jax.random.key(1), 300))
    assert all(x.all() for x in metrics["grad_finite"].values())
    constant = best_constant_nats(np.asarray(batch.obs[:, 3:]))
    assert metrics["image"][0] > constant > 100 and metrics["image"][-10:].mean() < 0.1 * constant
    assert metrics["reward"][-10:].mean() < 0.1
    if kind == "vae":
        assert metrics["kl"][-10:].mean() > 0.3  # a place among two or three, with no knowledge of the actions
    else:
        assert metrics["loss"][-10:].mean() < 0.1 * constant  # with what the latents tell
