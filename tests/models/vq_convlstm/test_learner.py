"""The losses of Smaller World Models against plain loops, what their gradients reach, and a world overfit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import DISCRETE_SPEC, random_steps
from tests.tiny_vq import TINY, configured
from tests.walks import walks
from wmjax import imagine
from wmjax.models.vq_convlstm import make, make_updates
from wmjax.models.vq_convlstm.learner import autoencoder_loss, dynamics_loss
from wmjax.models.vq_convlstm.model import make_modules
from wmjax.ops import continuous_bernoulli
from wmjax.ops import vector_quantisation as vq
from wmjax.ops.axes import fold, time_first, unfold_like

B, T = 3, 7
KEY = jax.random.key(0)


# Nothing of the reward reaches the dynamics, and all of it.
NEARLY_NONE, ALL = configured(reward_scale=1e-30), configured(reward_scale=1.0)


@pytest.fixture(scope="module")
def begun():
    """(jitted update of the autoencoder, first state, batch)."""
    _, learner = make(TINY, DISCRETE_SPEC)
    update = jax.jit(make_updates(TINY, DISCRETE_SPEC).autoencoder)
    return update, jax.jit(learner.init)(KEY), random_steps(DISCRETE_SPEC, B, T)


@pytest.fixture(scope="module")
def parts(begun):
    """(modules, model, params with several codes in use, batch with rewards of every class)."""
    update, state, batch = begun
    for _ in range(20):
        state = update(state, KEY, fold(batch.obs), 1.0)[0]
    params = jax.device_get(state.params)
    vectors = np.random.default_rng(0).normal(size=params["codebook"].vectors.shape).astype(np.float32)
    params["codebook"] = params["codebook"].replace(vectors=vectors)
    head = params["latent_head"]["params"]["Conv_0"]
    head["kernel"] = 30_000 * head["kernel"]  # so sure of the next codes that draws are its first choice
    rewards = np.random.default_rng(1).choice([-3.0, -0.4, 0.0, 0.6, 1.0], (B, T)).astype(np.float32)
    model, _ = make(TINY, DISCRETE_SPEC)
    return make_modules(TINY, DISCRETE_SPEC.obs_shape), model, params, batch.replace(reward=rewards)


def jitted_loss(parts, config):
    """(params, batch) -> ((loss, metrics), gradients)."""
    modules, model, _, _ = parts
    loss = lambda params, batch: dynamics_loss(config, modules, model, params, KEY, batch, DISCRETE_SPEC.action)
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def loss(parts):
    """Of `NEARLY_NONE`: the scale changes no value and the gradients of the dynamics alone."""
    return jitted_loss(parts, NEARLY_NONE)


def softmax_nats(logits, index):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[index]


def test_dynamics_loss_equals_a_loop(parts, loss):
    """Row by row and step by step, as the paper tells it: zero memory, real latents for `context` steps, then drawn."""
    (modules, _), model, params, batch = parts
    dynamics, reward_head = jax.jit(modules["dynamics"].apply), jax.jit(modules["reward"].apply)
    latent_head = jax.jit(modules["latent_head"].apply)
    vectors = np.asarray(params["codebook"].vectors)
    encode = jax.jit(model.encode)
    latent_nats, reward_nats, right = [], [], []
    counts = {
        name: 0
        for name in (
            "reward_count_minus",
            "reward_count_zero",
            "reward_count_plus",
            "reward_correct_minus",
            "reward_correct_zero",
            "reward_correct_plus",
        )
    }
    for b in range(B):
        embed = np.asarray(encode(params, batch.obs[b]))
        codes = np.argmin(np.square(embed[..., None, :] - vectors).sum(-1), axis=-1)  # [T, X, Y]
        cells = tuple((np.zeros((1, 4, 4, width), np.float32),) * 2 for width in TINY.cells)
        drawn = None
        for t in range(T - 1):
            seen = codes[t] if t < TINY.context else drawn
            action = np.eye(3, dtype=np.float32)[None, int(batch.prev_action[b, t + 1])]
            cells = dynamics(params["dynamics"], cells, vectors[seen][None], action)
            logits = np.asarray(latent_head(params["latent_head"], cells[-1][0], action, None)[0])
            drawn = logits.argmax(-1)
            latent_nats.append(sum(softmax_nats(logits[ij], codes[t + 1][ij]) for ij in np.ndindex(4, 4)))
            right.append((drawn == codes[t + 1]).mean())
            predicted = np.asarray(reward_head(params["reward"], cells[-1][0], action)[0])
            kind = int(np.round(np.clip(batch.reward[b, t + 1], -1, 1))) + 1
            name = ("minus", "zero", "plus")[kind]
            counts[f"reward_count_{name}"] += 1
            counts[f"reward_correct_{name}"] += predicted.argmax() == kind
            reward_nats.append(softmax_nats(predicted, kind))
    (total, metrics), _ = loss(params, batch)
    np.testing.assert_allclose(metrics["latent_loss"], np.mean(latent_nats), rtol=1e-3)
    np.testing.assert_allclose(metrics["reward_loss"], np.mean(reward_nats), rtol=1e-3)
    np.testing.assert_allclose(total, np.mean(latent_nats) + np.mean(reward_nats), rtol=1e-3)
    np.testing.assert_allclose(metrics["latent_accuracy"], np.mean(right), atol=0.02)
    assert {name: int(metrics[name]) for name in counts} == counts
    assert min(counts[f"reward_count_{name}"] for name in ("minus", "zero", "plus")) > 0


@pytest.mark.parametrize("at", [2, 5])
def test_steps_into_another_episode_do_not_count(parts, loss, at):
    """Inside the context a sequence starts again there; after it the rest of the chunk is left out."""
    _, _, params, batch = parts
    is_first = batch.is_first.copy()
    is_first[0, at] = True
    crossing = batch.replace(is_first=is_first)
    rest = slice(at, at + 1) if at < TINY.context else slice(at, None)  # arrivals that no longer count
    reward, obs = batch.reward.copy(), batch.obs.copy()
    reward[0, rest] = -reward[0, rest] - 1
    if at >= TINY.context:
        obs[0, at + 1 :] = 0
    one, two = loss(params, crossing)[0][1], loss(params, crossing.replace(reward=reward, obs=obs))[0][1]
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    there = sum(int(one[f"reward_count_{name}"]) for name in ("minus", "zero", "plus"))
    assert there == B * (T - 1) - (1 if at < TINY.context else T - at)
    assert loss(params, batch)[0][0] != loss(params, crossing)[0][0]


def test_what_the_dynamics_loss_trains(parts, loss):
    _, _, params, batch = parts
    grads = jax.device_get(loss(params, batch)[1])
    sizes = {name: sum(float(np.abs(x).sum()) for x in jax.tree.leaves(grad)) for name, grad in grads.items()}
    assert sizes["dynamics"] > 0 and sizes["reward"] > 0
    assert [sizes[name] for name in ("encoder", "decoder", "running")] == [0, 0, 0]


def some_differ(one, other):
    return any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_the_reward_hardly_moves_the_dynamics(parts, loss):
    """Its gradient enters them scaled by reward_scale, and reaches its own head whole."""
    _, _, params, batch = parts
    flipped = batch.replace(reward=-batch.reward)
    one, other = (jax.device_get(loss(params, x)[1]) for x in (batch, flipped))
    jax.tree.map(np.testing.assert_array_equal, one["dynamics"], other["dynamics"])
    assert some_differ(one["reward"], other["reward"])
    whole = jitted_loss(parts, ALL)
    full, other = (jax.device_get(whole(params, x)[1]) for x in (batch, flipped))
    assert some_differ(full["dynamics"], other["dynamics"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one["reward"], full["reward"])


def test_autoencoder_loss_by_its_parts(parts):
    (modules, latents), _, params, batch = parts
    images = fold(batch.obs)
    vectors = params["codebook"].vectors
    loss, (metrics, outputs, _) = jax.jit(
        functools.partial(autoencoder_loss, (modules, latents, continuous_bernoulli.log_prob))
    )(params, KEY, images)
    codes = vq.nearest(vectors, outputs)
    x = np.asarray(images, np.float64) / 255
    logits = np.asarray(jax.jit(modules["decoder"].apply)(params["decoder"], vectors[codes]), np.float64)
    each = x * logits - np.log1p(np.exp(logits)) + np.log(logits / np.tanh(logits / 2))
    distance = np.square(np.asarray(outputs) - np.asarray(vectors)[codes]).mean()
    np.testing.assert_allclose(metrics["elbo"], each.sum((1, 2, 3)).mean() - 16 * np.log(6), rtol=1e-4)
    np.testing.assert_allclose(metrics["commitment"], distance, rtol=1e-4)
    np.testing.assert_allclose(loss, -metrics["elbo"] + 0.25 * distance, rtol=1e-4)


def test_autoencoder_update_moves_statistics_and_takes_a_rate(begun):
    update, state, batch = begun
    images = fold(batch.obs)
    one, ten = update(state, KEY, images, 1.0)[0], update(state, KEY, images, 10.0)[0]
    kernel = lambda s: s.params["decoder"]["params"]["conv_in"]["kernel"]
    np.testing.assert_allclose(kernel(ten) - kernel(state), 10 * (kernel(one) - kernel(state)), rtol=1e-2, atol=1e-6)
    modules, _ = make_modules(TINY, DISCRETE_SPEC.obs_shape)
    _, statistics = jax.jit(modules["encoder"].apply)(state.params["encoder"], images / 255.0)
    for (mean, variance), (used_mean, used_variance) in zip(one.params["running"], statistics, strict=True):
        np.testing.assert_allclose(mean, 0.1 * used_mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, 0.9 + 0.1 * used_variance, rtol=1e-4)
    for name in ("dynamics", "latent_head", "reward"):
        jax.tree.map(np.testing.assert_array_equal, one.params[name], state.params[name])
    assert int(one.updates) == 0


def test_learns_a_small_world_exactly():
    """Every next code, every reward and every picture of imagined steps right."""
    spec, batch = walks(8, 8, side=4, reward=1.0)
    config = configured(learning_rate=3e-3, dynamics_learning_rate=1e-2, cells=(8, 8))
    model, learner = make(config, spec)
    updates = make_updates(config, spec)

    def train(update, data, state, count):
        step = jax.jit(lambda state, keys: jax.lax.scan(lambda state, key: update(state, key, data), state, keys))
        state, metrics = step(state, jax.random.split(KEY, count))
        metrics = jax.device_get(metrics)
        assert all(x.all() for x in metrics["grad_finite"].values())
        return state, metrics

    state, _ = train(updates.autoencoder, fold(batch.obs), jax.jit(learner.init)(KEY), 150)
    state, metrics = train(updates.dynamics, batch, state, 250)
    assert metrics["latent_accuracy"][:5].mean() < 0.7
    assert metrics["latent_accuracy"][-25:].mean() > 0.98
    correct, count = (
        sum(metrics[f"reward_{what}_{name}"][-25:].sum() for name in ("zero", "plus")) for what in ("correct", "count")
    )
    assert correct / count > 0.99

    @jax.jit
    def pictures(params):
        """[T - 1, B, X, Y, 1] of the first image and the actions after it."""
        embed = model.encode(params, batch.obs[:, 0])
        start, _ = model.observe(params, KEY, model.initial(params, 8), jnp.zeros((8, 2)), embed, jnp.ones(8, bool))
        actions = time_first(jax.nn.one_hot(batch.prev_action[:, 1:], 2))
        imagined = imagine.open_loop(model, params, KEY, start, actions)
        return jax.nn.sigmoid(unfold_like(model.decode(params, fold(imagined)), imagined))

    drawn = np.swapaxes(pictures(state.params), 0, 1)
    places = np.stack([batch.obs[batch.obs[..., 4, 4 * p, 0] > 0][0] for p in range(4)]) / 255.0  # the four images
    nearest = lambda images: np.square(images[:, :, None] - places[None, None]).sum((3, 4, 5)).argmin(-1)  # [B, T - 1]
    assert (nearest(drawn) == nearest(batch.obs[:, 1:] / 255.0)).mean() > 0.98
