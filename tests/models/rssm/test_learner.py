"""PlaNet's models against plain numpy loops on the same noise, and the learner on a batch it can memorise."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from tests.fakes import DISCRETE_SPEC, SPEC, random_steps, randomised
from wmjax import imagine
from wmjax.models import rssm
from wmjax.models.rssm.learner import model_loss, overshooting_loss
from wmjax.models.rssm.model import RSSMState
from wmjax.ops.actions import model_action
from wmjax.types import ActionSpec, EnvSpec

B, T, Z, U = 2, 6, 4, 6
KEY = jax.random.key(0)
SIZES = dict(stochastic=Z, deterministic=U, hidden=5, decoder_hidden=8, reward_units=5)
WIDTHS = dict(encoder_widths=(4, 8), decoder_widths=(8,))
SCALES = dict(kl_scale=0.7, image_scale=0.01, reward_scale=2.0, overshooting_scale=0.3)


def configured(**settings):
    return rssm.RSSMConfig(**{**SIZES, **WIDTHS, **SCALES, **settings})


def chunks(spec=SPEC):
    """Random chunks; in row 1 an episode begins at time 3."""
    batch = random_steps(spec, B, T)
    batch.is_first[1, 3] = True
    return batch


def random_params(learner):
    return randomised(jax.eval_shape(learner.init, KEY).params, 0.3)


class Reference:
    """One step of the models in numpy, with the parameters read by name."""

    def __init__(self, config, params):
        self.config = config
        params = {name: tree["params"] for name, tree in params.items()}
        self.p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        activations = dict(relu=lambda x: np.maximum(x, 0), elu=lambda x: np.where(x > 0, x, np.exp(x) - 1))
        self.activation = activations[config.activation]

    def dense(self, layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def gaussian(self, out):
        return out[:, :Z], np.log1p(np.exp(out[:, Z:])) + self.config.min_std

    def draw(self, mean, std, noise):
        return mean if self.config.kind == "rnn" else mean + std * noise

    def gru(self, h, x):
        p = self.p["gru"]
        gates = 1 / (1 + np.exp(-(x @ p["input_kernel"][:, : 2 * U] + h @ p["gates_kernel"] + p["gates_bias"])))
        reset, update = gates[:, :U], gates[:, U:]
        product = (reset * h) @ p["candidate_kernel"]
        candidate = np.tanh(x @ p["input_kernel"][:, 2 * U :] + product + p["candidate_bias"])
        return update * h + (1 - update) * candidate

    def prior(self, sample, belief, action):
        """-> (mean, std) and the new belief."""
        hidden = self.activation(self.dense(self.p["input"], np.concatenate([sample, action], -1)))
        if self.config.kind != "ssm":
            hidden = belief = self.gru(belief, hidden)
        mlp = self.p["prior"]["MLP_0"]
        return self.gaussian(self.dense(mlp["Dense_1"], self.activation(self.dense(mlp["Dense_0"], hidden)))), belief

    def posterior(self, prior, belief, embed):
        seen = np.concatenate(prior, -1) if self.config.kind == "ssm" else belief
        p = self.p["posterior"]
        hidden = self.activation(self.dense(p["recurrent"], seen) + embed)
        return self.gaussian(self.dense(p["head"]["MLP_0"]["Dense_0"], hidden))

    def reward(self, features):
        layers = [self.p["reward"][f"Dense_{i}"] for i in range(3)]
        for layer in layers[:2]:
            features = self.activation(self.dense(layer, features))
        return self.dense(layers[2], features)[:, 0]

    def filter(self, key, embed, action, is_first):
        """-> lists over time of (posterior, sample, belief, prior)."""
        sample, belief = np.zeros((B, Z)), np.zeros((B, 0 if self.config.kind == "ssm" else U))
        found = []
        for t, key_t in enumerate(jax.random.split(key, T)):
            keep = 1.0 - is_first[:, t, None]
            prior, belief = self.prior(sample * keep, belief * keep, action[:, t] * keep)
            posterior = self.posterior(prior, belief, embed[:, t])
            sample = self.draw(*posterior, np.asarray(jax.random.normal(key_t, (B, Z))))
            found.append((posterior, sample, belief, prior))
        return found

    def overshooting(self, key, found, action, is_first):
        """From every start step by step to distance D: the divergences of distances 2 ... D, by rows and times."""
        distance = self.config.overshooting_distance
        noise = [np.asarray(jax.random.normal(k, (B * T, Z))).reshape(B, T, Z) for k in jax.random.split(key, distance)]
        total = 0.0
        for b in range(B):
            for start in range(T):
                sample, belief = (x[b : b + 1] for x in found[start][1:3])
                for d in range(1, distance + 1):
                    t = start + d
                    if t >= T or is_first[b, t]:
                        break
                    prior, belief = self.prior(sample, belief, action[b : b + 1, t])
                    sample = self.draw(*prior, noise[d - 1][b : b + 1, t])
                    if d > 1:
                        target = [x[b : b + 1] for x in found[t][0]]
                        total += max(kl(target, prior)[0], self.config.free_nats)
        return total / (B * T * (distance - 1))


def kl(p, q):
    (mean1, std1), (mean2, std2) = p, q
    return (np.log(std2 / std1) + (std1**2 + (mean1 - mean2) ** 2) / (2 * std2**2) - 0.5).sum(-1)


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        (dict(overshooting_distance=3), SPEC),
        (dict(kind="ssm", activation="elu", overshooting_distance=4), DISCRETE_SPEC),
        (dict(kind="rnn"), SPEC),
    ],
    ids=["rssm", "ssm", "rnn"],
)
def test_loss_equals_numpy(settings, spec):
    """The whole forward pass but for the convolutions, which have their own tests. Half the steps have free nats."""
    config = configured(**settings)
    model, learner = rssm.make(config, spec)
    params, batch = random_params(learner), chunks(spec)

    reference = Reference(config, params)
    noise_key, filter_key, overshoot_key = jax.random.split(KEY, 3)
    action = np.asarray(model_action(batch.prev_action, spec.action), np.float64)
    obs = batch.obs.reshape(B * T, *spec.obs_shape)
    embed = np.asarray(jax.jit(model.encode)(params, obs), np.float64).reshape(B, T, -1)
    found = reference.filter(filter_key, embed, action, batch.is_first)
    features = np.stack([np.concatenate([sample, belief], -1) for _, sample, belief, _ in found], axis=1)

    flat = features.reshape(B * T, -1)
    reward = reference.reward(flat)
    fake_state = RSSMState(None, None, flat[:, :Z].astype(np.float32), flat[:, Z:].astype(np.float32))
    image = np.asarray(jax.jit(model.decode)(params, fake_state), np.float64)
    target = np.floor(obs / 8) / 32 - 0.5 + np.asarray(jax.random.uniform(noise_key, obs.shape)) / 32
    image_loss = 0.5 * np.square(target - image).sum((1, 2, 3)).mean()
    reward_loss = 0.5 * np.square(batch.reward.reshape(-1) - reward).mean()
    distances = np.stack([kl(posterior, prior) for posterior, _, _, prior in found], axis=1)
    expected = dict(image_loss=image_loss, reward_loss=reward_loss)
    total = 0.01 * image_loss + 2.0 * reward_loss
    if config.kind != "rnn":
        config = reference.config = dataclasses.replace(config, free_nats=float(np.median(distances)))
        expected["kl"] = distances.mean()
        total += 0.7 * np.maximum(distances, config.free_nats).mean()
    if config.overshooting_distance > 1:
        expected["overshooting_kl"] = reference.overshooting(overshoot_key, found, action, batch.is_first)
        total += 0.3 * expected["overshooting_kl"]
    expected["loss"] = total

    loss, metrics = jax.jit(lambda *args: model_loss(model, config, spec.action, *args))(params, KEY, batch)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    np.testing.assert_array_equal(loss, metrics["loss"])


def test_a_distance_of_one_is_no_overshooting():
    """The loss without overshooting is the one with it less its term; and that term counts no distance 1."""
    batch, losses = chunks(), {}
    for distance in (1, 2):
        config = configured(overshooting_distance=distance)
        model, learner = rssm.make(config, SPEC)
        run = jax.jit(lambda *args, model=model, config=config: model_loss(model, config, SPEC.action, *args))
        losses[distance] = run(random_params(learner), KEY, batch)[1]
    assert "overshooting_kl" not in losses[1]
    rest = losses[2]["loss"] - 0.3 * losses[2]["overshooting_kl"]
    np.testing.assert_allclose(losses[1]["loss"], rest, rtol=1e-5)
    assert losses[2]["overshooting_kl"] > 0


@pytest.mark.parametrize("kind", ["rssm", "ssm"])
def test_overshooting_trains_priors_towards_posteriors_and_not_back(kind):
    """No gradient for the targets; starting points have one where a distance of 2 or 3 reaches a target from them."""
    config = configured(kind=kind, overshooting_distance=3, free_nats=0.0)
    model, learner = rssm.make(config, SPEC)
    batch, rng = chunks(), np.random.default_rng(0)
    mean, sample = rng.normal(size=(2, B, T, Z)).astype(np.float32)
    std = rng.uniform(0.5, 2, (B, T, Z)).astype(np.float32)
    belief = rng.normal(size=(B, T, 0 if kind == "ssm" else U)).astype(np.float32)
    states = RSSMState(mean, std, sample, belief)

    @jax.jit
    @jax.grad
    def gradient(states, params):
        return overshooting_loss(model, config, params, KEY, states, batch.prev_action, batch.is_first)

    grad = gradient(states, random_params(learner))
    assert not grad.mean.any() and not grad.std.any()
    starts = np.array([[1, 1, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0]], bool)  # row 1: an episode begins at time 3
    np.testing.assert_array_equal(np.abs(grad.sample).sum(-1) > 0, starts)
    if kind == "rssm":
        np.testing.assert_array_equal(np.abs(grad.belief).sum(-1) > 0, starts)


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
    state = model.imagine(params, KEY, model.initial(params, B), np.ones((B, 2), np.float32))
    features = model.features(params, state)
    np.testing.assert_array_equal(features, np.concatenate([state.sample, state.belief], -1))
    assert features.shape == (B, width)
    assert (np.asarray(state.sample == state.mean)).all() == (kind == "rnn")
    np.testing.assert_array_equal(model.discount(params, state), np.ones(B))


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


@pytest.fixture(scope="module")
def memorising():
    """(learner, jitted update, first state, a small batch of structured images and rewards)."""
    config = rssm.RSSMConfig(**SIZES, **WIDTHS, learning_rate=0.01, free_nats=3.0, reward_scale=10.0, clip_norm=0.5)
    _, learner = rssm.make(config, SPEC)
    batch = random_steps(SPEC, B, T)
    batch.obs[:] = 0
    for b in range(B):
        for t in range(T):
            batch.obs[b, t, :, 2 * t : 2 * t + 4, b] = 255
    batch.reward[:] = np.arange(T)[None] / 2 * np.array([[1], [-1]])
    return learner, jax.jit(learner.update), jax.jit(learner.init)(KEY), batch


def test_the_first_update_is_adam_on_a_clipped_gradient(memorising):
    learner, update, state, batch = memorising
    after, metrics = update(state, KEY, batch)
    moments = [x for x in jax.tree.leaves(after.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")][0]
    clipped = [np.asarray(mu) / 0.1 for mu in jax.tree.leaves(moments.mu)]
    assert metrics["grad_norm"] > 0.5  # as it was before it was clipped
    np.testing.assert_allclose(np.sqrt(sum(np.square(g).sum() for g in clipped)), 0.5, rtol=1e-4)
    for old, new, grad in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), clipped, strict=True):
        np.testing.assert_allclose(new - old, -0.01 * grad / (np.abs(grad) + 1e-4), atol=1e-5)


def test_a_small_batch_is_memorised(memorising):
    learner, update, state, batch = memorising
    history = []
    for i in range(150):
        state, metrics = update(state, jax.random.fold_in(KEY, i), batch)
        history.append([float(metrics["image_loss"]), float(metrics["reward_loss"])])
    first, last = np.mean(history[:3], axis=0), np.mean(history[-10:], axis=0)
    assert last[0] < first[0] / 5, "images"
    assert last[1] < first[1] / 10, "rewards"


def products(jaxpr):
    """Every matrix product and convolution of a jaxpr."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield eqn
        for inside in jaxprs_in_params(eqn.params):
            yield from products(inside)


@pytest.mark.parametrize("kind", ["rssm", "ssm", "rnn"])
def test_bfloat16_is_of_the_networks_alone(kind):
    """Products have bfloat16 operands; parameters, gradients, beliefs, losses are float32 and nearly the same."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = configured(kind=kind, compute_dtype=dtype)
        model, learner = rssm.make(config, SPEC)
        params = random_params(learner)
        gradient = jax.value_and_grad(functools.partial(model_loss, model, config, SPEC.action), has_aux=True)
        jaxpr = jax.make_jaxpr(gradient)(params, KEY, chunks())
        assert {x.aval.dtype for eqn in products(jaxpr.jaxpr) for x in eqn.invars} == {jnp.dtype(dtype)}
        (_, metrics), gradients = jax.jit(gradient)(params, KEY, chunks())
        state = jax.jit(model.imagine)(params, KEY, model.initial(params, B), jnp.ones((B, SPEC.action.size)))
        assert {x.dtype for x in jax.tree.leaves((metrics, gradients, state))} == {jnp.dtype("float32")}
        found[dtype] = metrics, gradients
    (exact, exact_gradients), (rounded, gradients) = found["float32"], found["bfloat16"]
    assert rounded["loss"] != exact["loss"]
    for name in exact:
        np.testing.assert_allclose(rounded[name], exact[name], rtol=0.03, atol=0.01, err_msg=name)
    size = optax.global_norm(exact_gradients)
    assert optax.global_norm(jax.tree.map(jnp.subtract, gradients, exact_gradients)) < 0.1 * size
