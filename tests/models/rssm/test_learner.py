"""PlaNet's models against plain numpy loops on the same noise, and the learner on a batch it can memorise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.fakes import DISCRETE_SPEC, SPEC, random_steps
from tests.jaxprs import products
from tests.tiny_rssm import KEY, SIZES, WIDTHS, B, T, U, Z, chunks, configured, random_params
from wmjax.models import rssm
from wmjax.models.rssm.learner import model_loss, overshooting_loss
from wmjax.models.rssm.model import RSSMState
from wmjax.ops import noise
from wmjax.ops.actions import model_action

CASES = {  # name -> settings, environment; about half the steps have free nats
    "rssm": (dict(overshooting_distance=3, free_nats=9.6), SPEC),
    "ssm": (dict(kind="ssm", activation="elu", overshooting_distance=4, free_nats=7.0), DISCRETE_SPEC),
    "rnn": (dict(kind="rnn"), SPEC),
    "drnn": (dict(kind="drnn", overshooting_distance=3, free_nats=0.07), SPEC),
}


@functools.cache
def made(name, dtype="float32"):
    """(config, environment, model, parameters with no zeros); nothing changes them."""
    settings, spec = CASES[name]
    config = configured(**settings, compute_dtype=dtype)
    model, learner = rssm.make(config, spec)
    return config, spec, model, random_params(learner)


def gradient_of(name, dtype="float32"):
    """(parameters, key, batch) -> ((loss, metrics), gradients), not jitted."""
    config, spec, model, _ = made(name, dtype)
    return jax.value_and_grad(functools.partial(model_loss, model, config, spec.action), has_aux=True)


@functools.cache
def scored(name, dtype="float32"):
    """((loss, metrics), gradients) of the chunks."""
    _, spec, _, params = made(name, dtype)
    return jax.device_get(jax.jit(gradient_of(name, dtype))(params, KEY, chunks(spec)))


class Reference:
    """One step of the models in numpy, with the parameters read by name; a state is a tuple, the sample first."""

    def __init__(self, config, params):
        self.config = config
        params = {name: tree["params"] for name, tree in params.items()}
        self.p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        activations = dict(relu=lambda x: np.maximum(x, 0), elu=lambda x: np.where(x > 0, x, np.exp(x) - 1))
        self.activation = activations[config.activation]
        sizes = dict(ssm=(Z, 0), drnn=(Z, U, U)).get(config.kind, (Z, U))
        self.start = [np.zeros((B, size)) for size in sizes]

    def dense(self, layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def gaussian(self, out):
        return out[:, :Z], np.log1p(np.exp(out[:, Z:])) + self.config.min_std

    def draw(self, mean, std, noise):
        return mean if self.config.kind == "rnn" else mean + std * noise

    def gru(self, name, h, x, share=0.0):
        p = self.p[name]
        from_input = x @ p["input_kernel"] + share
        gates = 1 / (1 + np.exp(-(from_input[:, : 2 * U] + h @ p["gates_kernel"] + p["gates_bias"])))
        reset, update = gates[:, :U], gates[:, U:]
        product = (reset * h) @ p["candidate_kernel"]
        candidate = np.tanh(from_input[:, 2 * U :] + product + p["candidate_bias"])
        return update * h + (1 - update) * candidate

    def mlp(self, name, x):
        layers = self.p[name]["MLP_0"]
        return self.gaussian(self.dense(layers["Dense_1"], self.activation(self.dense(layers["Dense_0"], x))))

    def prior(self, sample, belief, action):
        """-> (mean, std) and the new belief."""
        hidden = self.activation(self.dense(self.p["input"], np.concatenate([sample, action], -1)))
        if self.config.kind != "ssm":
            hidden = belief = self.gru("gru", belief, hidden)
        return self.mlp("prior", hidden), belief

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

    def observe(self, state, action, embed, noise):
        """-> (posterior, new state, prior)."""
        prior, belief = self.prior(*state, action)
        posterior = self.posterior(prior, belief, embed)
        return posterior, (self.draw(*posterior, noise), belief), prior

    def imagine(self, state, action, noise):
        """-> (prior, new state)."""
        prior, belief = self.prior(*state, action)
        return prior, (self.draw(*prior, noise), belief)

    def features(self, state):
        return np.concatenate(state, -1)

    def filter(self, key, embed, action, is_first):
        """-> list over time of (posterior, state, prior)."""
        state, found = self.start, []
        for t, key_t in enumerate(jax.random.split(key, T)):
            keep = 1.0 - is_first[:, t, None]
            noise = np.asarray(jax.random.normal(key_t, (B, Z)))
            found.append(self.observe([x * keep for x in state], action[:, t] * keep, embed[:, t], noise))
            state = found[-1][1]
        return found

    def overshooting(self, key, found, action, is_first):
        """From every start step by step to distance D: the divergences of distances 2 ... D, by rows and times."""
        distance = self.config.overshooting_distance
        noise = [np.asarray(jax.random.normal(k, (B * T, Z))).reshape(B, T, Z) for k in jax.random.split(key, distance)]
        total = 0.0
        for b in range(B):
            for start in range(T):
                state = [x[b : b + 1] for x in found[start][1]]
                for d in range(1, distance + 1):
                    t = start + d
                    if t >= T or is_first[b, t]:
                        break
                    prior, state = self.imagine(state, action[b : b + 1, t], noise[d - 1][b : b + 1, t])
                    if d > 1:
                        target = [x[b : b + 1] for x in found[t][0]]
                        total += max(kl(target, prior)[0], self.config.free_nats)
        return total / (B * T * (distance - 1))


class DoublyRecurrent(Reference):
    """The same of the drnn: a state is sample, decoder's state, encoder's state."""

    def cell(self, state, action, embed):
        """-> (mean, std) of the next sample, and the encoder's next state."""
        sample, decoder, encoder = state
        encoder = self.gru("encoder_gru", encoder, np.concatenate([action, sample], -1), embed)
        return self.mlp("latent", np.concatenate([encoder, sample, decoder], -1)), encoder

    def follow(self, state, code, encoder, noise):
        sample = self.draw(*code, noise)
        return sample, self.gru("decoder_gru", state[1], sample), encoder

    def observe(self, state, action, embed, noise):
        prior, _ = self.cell(state, action, np.zeros_like(embed))
        posterior, encoder = self.cell(state, action, embed)
        return posterior, self.follow(state, posterior, encoder, noise), prior

    def imagine(self, state, action, noise):
        prior, encoder = self.cell(state, action, np.zeros((len(action), 3 * U)))
        return prior, self.follow(state, prior, encoder, noise)

    def features(self, state):
        return state[1]


def make_reference(config, params):
    return (DoublyRecurrent if config.kind == "drnn" else Reference)(config, params)


def kl(p, q):
    (mean1, std1), (mean2, std2) = p, q
    return (np.log(std2 / std1) + (std1**2 + (mean1 - mean2) ** 2) / (2 * std2**2) - 0.5).sum(-1)


@pytest.mark.parametrize("name", CASES)
def test_loss_equals_numpy(name):
    """The whole forward pass but for the convolutions, which have their own tests. Half the steps have free nats."""
    config, spec, model, params = made(name)
    batch = chunks(spec)
    reference = make_reference(config, params)
    noise_key, filter_key, overshoot_key = jax.random.split(KEY, 3)
    action = np.asarray(model_action(batch.prev_action, spec.action), np.float64)
    obs = batch.obs.reshape(B * T, *spec.obs_shape)
    embed = np.asarray(jax.jit(model.encode)(params, obs), np.float64).reshape(B, T, -1)
    found = reference.filter(filter_key, embed, action, batch.is_first)
    flat = np.stack([reference.features(state) for _, state, _ in found], axis=1).reshape(B * T, -1)
    reward = reference.reward(flat)
    split = flat.shape[1] - (0 if config.kind == "ssm" else U)
    sample, belief = (x.astype(np.float32) for x in (flat[:, :split], flat[:, split:]))
    image = np.asarray(jax.jit(model.decode)(params, RSSMState(None, None, sample, belief, None)), np.float64)
    target = np.floor(obs / 8) / 32 - 0.5 + np.asarray(noise.uniform(noise_key, obs.shape)) / 32
    image_loss = 0.5 * np.square(target - image).sum((1, 2, 3)).mean()
    reward_loss = 0.5 * np.square(batch.reward.reshape(-1) - reward).mean()
    distances = np.stack([kl(posterior, prior) for posterior, _, prior in found], axis=1)
    expected = dict(image_loss=image_loss, reward_loss=reward_loss)
    total = 0.01 * image_loss + 2.0 * reward_loss
    if config.kind != "rnn":
        assert 0.2 < (distances < config.free_nats).mean() < 0.8
        expected["kl"] = distances.mean()
        total += 0.7 * np.maximum(distances, config.free_nats).mean()
    if config.overshooting_distance > 1:
        expected["overshooting_kl"] = reference.overshooting(overshoot_key, found, action, batch.is_first)
        total += 0.3 * expected["overshooting_kl"]
    expected["loss"] = total

    (loss, metrics), _ = scored(name)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    np.testing.assert_array_equal(loss, metrics["loss"])


def test_a_distance_of_one_is_no_overshooting():
    """The loss without overshooting is the one with it less its term."""
    config, spec, model, params = made("rssm")
    config = dataclasses.replace(config, overshooting_distance=1)
    one = jax.jit(functools.partial(model_loss, model, config, spec.action))(params, KEY, chunks())[1]
    three = scored("rssm")[0][1]
    assert "overshooting_kl" not in one and three["overshooting_kl"] > 0
    np.testing.assert_allclose(one["loss"], three["loss"] - 0.3 * three["overshooting_kl"], rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_trains_every_parameter_but_the_prior_of_the_rnn(name):
    """Without a divergence the prior has no loss."""
    for path, gradient in jax.tree.leaves_with_path(scored(name)[1]):
        path = jax.tree_util.keystr(path)
        assert gradient.any() != (name == "rnn" and path.startswith("['prior']")), path


def test_balancing_scales_what_the_divergence_teaches_the_prior():
    """The loss is the same, the gradient of the prior's own layers ten times as large, that of the posterior not."""

    def scored(scale):
        config = configured(prior_scale=scale, free_nats=0.0, image_scale=0.0, reward_scale=0.0)
        model, learner = rssm.make(config, SPEC)
        loss = jax.value_and_grad(functools.partial(model_loss, model, config, SPEC.action), has_aux=True)
        (value, _), gradient = jax.jit(loss)(random_params(learner), KEY, chunks())
        return jax.device_get((value, gradient))

    (loss, plain), (same, balanced) = scored(1.0), scored(10.0)
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, 10 * a, rtol=1e-3, atol=1e-5),
        *(x["prior"] for x in (plain, balanced)),
    )
    last = jax.tree.leaves(plain["posterior"])[0], jax.tree.leaves(balanced["posterior"])[0]
    assert not np.allclose(last[1], 10 * last[0], rtol=0.05)


PRIORS = dict(rssm={"input", "gru", "prior"}, ssm={"input", "prior"}, drnn={"encoder_gru", "latent", "decoder_gru"})


@pytest.mark.parametrize("kind", PRIORS)
def test_overshooting_trains_priors_towards_posteriors_and_not_back(kind):
    """No gradient for the targets; starting points have one where a distance of 2 or 3 reaches a target from them."""
    config = configured(kind=kind, overshooting_distance=3, free_nats=0.0)
    model, learner = rssm.make(config, SPEC)
    batch, rng = chunks(), np.random.default_rng(0)
    mean, sample = rng.normal(size=(2, B, T, Z)).astype(np.float32)
    std = rng.uniform(0.5, 2, (B, T, Z)).astype(np.float32)
    belief = rng.normal(size=(B, T, 0 if kind == "ssm" else U)).astype(np.float32)
    encoder = rng.normal(size=(B, T, U if kind == "drnn" else 0)).astype(np.float32)
    states = RSSMState(mean, std, sample, belief, encoder)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def gradient(states, params):
        return overshooting_loss(model, config, params, KEY, states, batch.prev_action, batch.is_first)

    loss, (grad, trained) = gradient(states, random_params(learner))
    assert 0 < loss < np.inf
    reached = {name: {bool(x.any()) for x in jax.tree.leaves(tree)} for name, tree in trained.items()}
    assert reached == {name: {name in PRIORS[kind]} for name in trained}
    assert not grad.mean.any() and not grad.std.any()
    starts = np.array([[1, 1, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0]], bool)  # row 1: an episode begins at time 3
    np.testing.assert_array_equal(np.abs(grad.sample).sum(-1) > 0, starts)
    for carry in (grad.belief, grad.encoder):
        np.testing.assert_array_equal(np.abs(carry).sum(-1) > 0, starts & (carry.size > 0))


@functools.cache
def memorising(kind):
    """(learner, jitted update, first state, a small batch of structured images and rewards)."""
    settings = dict(kind=kind, learning_rate=0.01, free_nats=3.0, reward_scale=10.0, clip_norm=0.5)
    _, learner = rssm.make(rssm.RSSMConfig(**SIZES, **WIDTHS, **settings), SPEC)
    batch = random_steps(SPEC, B, T)
    batch.obs[:] = 0
    for b in range(B):
        for t in range(T):
            batch.obs[b, t, :, 2 * t : 2 * t + 4, b] = 255
    batch.reward[:] = np.arange(T)[None] / 2 * np.array([[1], [-1]])
    return learner, jax.jit(learner.update), jax.jit(learner.init)(KEY), batch


def test_the_first_update_is_adam_on_a_clipped_gradient():
    learner, update, state, batch = memorising("rssm")
    after, metrics = update(state, KEY, batch)
    moments = [x for x in jax.tree.leaves(after.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")][0]
    clipped = [np.asarray(mu) / 0.1 for mu in jax.tree.leaves(moments.mu)]
    assert metrics["grad_norm"] > 0.5  # as it was before it was clipped
    np.testing.assert_allclose(np.sqrt(sum(np.square(g).sum() for g in clipped)), 0.5, rtol=1e-4)
    for old, new, grad in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), clipped, strict=True):
        np.testing.assert_allclose(new - old, -0.01 * grad / (np.abs(grad) + 1e-4), atol=1e-5)


@pytest.mark.parametrize("kind", ["rssm", pytest.param("drnn", marks=pytest.mark.slow)])
def test_a_small_batch_is_memorised(kind):
    learner, update, state, batch = memorising(kind)
    history = []
    for i in range(150):
        state, metrics = update(state, jax.random.fold_in(KEY, i), batch)
        history.append([float(metrics["image_loss"]), float(metrics["reward_loss"])])
    first, last = np.mean(history[:3], axis=0), np.mean(history[-10:], axis=0)
    assert last[0] < first[0] / 5, "images"
    assert last[1] < first[1] / 10, "rewards"


@pytest.mark.parametrize("name", ["rssm", "ssm", "rnn", pytest.param("drnn", marks=pytest.mark.slow)])
def test_bfloat16_is_of_the_networks_alone(name):
    """Products have bfloat16 operands; parameters, gradients, beliefs, losses are float32 and nearly the same."""
    for dtype in ("float32", "bfloat16"):
        _, spec, model, params = made(name, dtype)
        jaxpr = jax.make_jaxpr(gradient_of(name, dtype))(params, KEY, chunks(spec))
        assert {x.aval.dtype for eqn in products(jaxpr.jaxpr) for x in eqn.invars} == {jnp.dtype(dtype)}
        action = jnp.ones((B, spec.action.size))
        state = jax.eval_shape(
            lambda params, m=model, a=action: m.imagine(params, KEY, m.initial(params, B), a), params
        )
        assert {x.dtype for x in jax.tree.leaves((state, scored(name, dtype)))} == {jnp.dtype("float32")}
    ((_, exact), exact_gradients), ((_, rounded), gradients) = scored(name), scored(name, "bfloat16")
    assert rounded["loss"] != exact["loss"]
    for metric in exact:
        np.testing.assert_allclose(rounded[metric], exact[metric], rtol=0.03, atol=0.01, err_msg=metric)
    size = optax.global_norm(exact_gradients)
    assert optax.global_norm(jax.tree.map(np.subtract, gradients, exact_gradients)) < 0.1 * size
