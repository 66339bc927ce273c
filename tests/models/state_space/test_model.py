"""Environment models step by step against the paper's equations, their bound against float64, what reaches what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import SPEC, randomised
from tests.tiny_state_space import DIGITS, KEY, B, C, T, batch_of, configured
from wmjax import imagine
from wmjax.models import state_space
from wmjax.models.state_space.learner import score
from wmjax.models.state_space.model import init_params, make_model, make_modules
from wmjax.ops.axes import fold, time_first, unfold_like

GRID, LATENT = (2, 2), (2, 2, C // 2)
CASES = {  # name -> settings
    **{kind: dict(kind=kind) for kind in state_space.KINDS},
    "ar_of_order_1": dict(kind="ar", order=1),
    "ar_of_order_5": dict(kind="ar", order=5),
    "sssm_without_actions": dict(kind="sssm", sees_actions=False),
    "sssm_with_contrast": dict(kind="sssm", contrast=3.0),
    "rar_with_contrast": dict(kind="rar", contrast=3.0),
}
STOCHASTIC = ("sssm", "dssm_vae", "vae")


@functools.cache
def jitted(module):
    """Compiled once, whichever models have the module."""
    return jax.jit(module.apply)


def called(module, *args):
    return jax.tree.map(np.asarray, jitted(module)(*args))


@functools.cache
def made(name, spec=SPEC):
    """(config, model, parts, params with no zeros, those of its modules' functions); nothing changes them."""
    config = configured(**CASES[name])
    params = randomised(jax.eval_shape(lambda: init_params(KEY, config, spec)), 0.12)
    modules = make_modules(config, spec)
    call = {name: functools.partial(called, module, params[name]) for name, module in modules.items()}
    return config, *make_model(config, spec), params, call


def unit(obs):
    return np.asarray(obs, np.float32) / 255


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


class Episode:
    """One episode of one row, told by the paper's equations: it keeps the whole past and looks up what it needs."""

    def __init__(self, name):
        self.config, _, _, self.params, self.call = made(name)
        self.kind = self.config.kind
        self.embeds, self.actions = [], []  # of every image; actions[t] led to image t
        self.state, self.latent, self.prior, self.posterior = None, None, None, None

    def seen(self, action):
        sees = self.config.sees_actions and self.kind != "vae"
        return action[None] if sees else np.zeros((1, 0), np.float32)

    def from_images(self):
        """s0, or the map of an auto-regressive model: from the newest images, the first in place of those before it."""
        newest, count = len(self.embeds) - 1, self.config.order if self.kind == "ar" else 3
        times = range(newest - count + 1, newest + 1)
        maps = np.concatenate([self.embeds[max(t, 0)] for t in times], axis=-1)
        between = [self.actions[t] if t > 0 else np.zeros(2, np.float32) for t in times[1:]]
        actions = np.concatenate([self.seen(a) for a in between], axis=-1) if between else np.zeros((1, 0), np.float32)
        return self.call["start"](maps, actions if self.kind == "ar" else actions[:, :0])

    def step(self, action, noise, embed=None):
        """z' and s' from the posterior where there is an image, else from the prior."""
        before = self.from_images() if self.kind == "ar" else self.state
        self.prior = self.posterior = mean, std = self.call["prior"]([before], self.seen(action))
        if embed is not None and self.kind in STOCHASTIC:
            self.posterior = self.call["posterior"]([before, mean, std, embed], self.seen(action))
        drawn = self.posterior[0] + self.posterior[1] * noise[None]
        fed = drawn if self.kind == "sssm" else mean
        maps = [before, fed] + [self.embeds[-1]] * (self.kind == "rar")
        self.state = before if self.kind == "vae" else self.call["transition"](maps, self.seen(action))
        self.latent = drawn if self.kind in STOCHASTIC else mean

    def observe(self, obs, action, noise):
        embed = self.embed(unit(obs)[None])
        if len(self.embeds) >= 3:
            self.step(action, noise, embed)
        self.remember(embed, action)
        if len(self.embeds) <= 3:
            self.state, self.latent = self.from_images(), np.zeros((1, *LATENT), np.float32)
            self.prior = self.posterior = self.latent, np.ones_like(self.latent)

    def imagine(self, action, noise):
        self.step(action, noise)
        if self.kind in ("rar", "ar"):
            self.remember(self.embed(sigmoid(self.image())), action)

    def remember(self, embed, action):
        self.embeds.append(embed)
        self.actions.append(action)

    def maps(self):
        return np.concatenate([self.state, self.latent], axis=-1)

    def embed(self, image):
        if self.config.contrast:
            image = self.config.contrast * (image - sigmoid(self.params["background"]))
        return self.call["encoder"](image)

    def image(self):
        """Logits of the pixels."""
        background = self.params["background"] if self.config.contrast else 0
        return np.asarray(self.call["decoder"](self.maps())) + background


def noises(key, count, rows=B):
    """What `count` steps draw, [count, rows, ...]."""
    return np.stack([jax.random.normal(key, (rows, *LATENT)) for key in jax.random.split(key, count)])


@pytest.mark.parametrize("name", CASES)
def test_steps_equal_the_papers_equations(name):
    """In row 1 an episode begins at time 2; after all images two steps are imagined."""
    config, model, _, params, call = made(name)
    batch = batch_of()
    batch.is_first[:, 0] = batch.is_first[1, 2] = True

    @jax.jit
    def run(params, batch):
        embed = model.encode(params, fold(batch.obs))
        embed = embed.reshape(B, T, *embed.shape[1:])
        last, states, beliefs = imagine.filter(
            model,
            params,
            KEY,
            model.initial(params, B),
            prev_action=batch.prev_action,
            embed=embed,
            is_first=batch.is_first,
        )
        imagined = imagine.open_loop(model, params, KEY, last, time_first(batch.prev_action[:, 1:3]))
        flat = fold(imagined)
        heads = [unfold_like(head(params, flat), imagined) for head in (model.decode, model.features, model.reward)]
        return states, beliefs, imagined, heads

    states, beliefs, imagined, (images, features, rewards) = run(params, batch)
    seen, ahead = noises(KEY, T), noises(KEY, 2)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    for b in range(B):
        for t in range(T):
            if batch.is_first[b, t]:
                episode = Episode(name)
            episode.observe(batch.obs[b, t], batch.prev_action[b, t], seen[t, b])
            close(states.state[b, t], episode.state[0])
            close(states.latent[b, t], episode.latent[0])
            told = [*episode.prior, *episode.posterior]
            for one, other in zip(jax.tree.leaves(beliefs), told, strict=True):
                close(one[b, t], other[0])
        for h in range(2):
            episode.imagine(batch.prev_action[b, 1 + h], ahead[h, b])
            close(imagined.state[h, b], episode.state[0])
            close(imagined.latent[h, b], episode.latent[0])
            close(images[h, b], episode.image()[0])
            close(features[h, b], episode.maps()[0])
            bits = sigmoid(call["reward"](episode.maps())[0])
            size = sum(p * 2**i for i, p in enumerate(bits[:DIGITS]))
            close(rewards[h, b], (1 - bits[-1]) * (1 - 2 * bits[-2]) * size)


def reward_nats(reward, logits):
    size = min(int(abs(reward)), 2**DIGITS - 1)
    bits = [size // 2**i % 2 for i in range(DIGITS)] + [reward < 0, reward == 0]
    shares = 1 / (1 + np.exp(-np.float64(logits)))
    return -sum(np.log(p if bit else 1 - p) for bit, p in zip(bits, shares, strict=True))


def pixel_nats(obs, logits):
    x, q = np.float64(obs) / 255, 1 / (1 + np.exp(-np.float64(logits)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return sum(np.where(p > 0, p * np.log(p / other), 0).sum() for p, other in ((x, q), (1 - x, 1 - q)))


def kl(posterior, prior):
    (m, s), (m0, s0) = ([np.float64(x).ravel() for x in pair] for pair in (posterior, prior))
    return (np.log(s0 / s) + (s**2 + (m - m0) ** 2) / (2 * s0**2) - 0.5).sum()


@functools.cache
def scored(name):
    """(score, what it says of `batch_of()`).

    score: a function (params, key, batch) -> (terms, states, beliefs), gradient of the terms up to time 4 with respect
    to the actions; compiled once.
    """
    config, model, parts, params, _ = made(name)

    def early(action, params, key, batch):
        found = score(model, parts, config, SPEC.action, params, key, batch.replace(prev_action=action))
        return sum(x[:, :2].sum() for x in found[0].values()), found

    both = jax.jit(jax.grad(early, has_aux=True))
    run = lambda params, key, batch: jax.device_get(both(batch.prev_action, params, key, batch))[::-1]
    return run, run(params, KEY, batch_of())


@pytest.mark.parametrize("name", CASES)
def test_terms_of_the_bound_equal_float64(name):
    """The first three images of a chunk are context: what led to the first of them is not looked at."""
    call, batch, ((terms, _, _), _) = made(name)[-1], batch_of(), scored(name)[1]
    assert set(terms) == {"image", "reward"} | ({"kl"} if CASES[name]["kind"] in STOCHASTIC else set())
    assert {x.shape for x in terms.values()} == {(B, T - 3)}
    noise = noises(KEY, T - 3)
    for b in range(B):
        episode = Episode(name)
        for t in range(T):
            episode.observe(batch.obs[b, t], batch.prev_action[b, t], noise[max(t - 3, 0), b])
            if t < 3:
                continue
            image = pixel_nats(batch.obs[b, t], episode.image()[0])
            np.testing.assert_allclose(terms["image"][b, t - 3], image, rtol=1e-3)
            bits = reward_nats(batch.reward[b, t], call["reward"](episode.maps())[0])
            np.testing.assert_allclose(terms["reward"][b, t - 3], bits, rtol=1e-3)
            if "kl" in terms:
                np.testing.assert_allclose(terms["kl"][b, t - 3], kl(episode.posterior, episode.prior), rtol=1e-3)


@pytest.mark.parametrize("name", ["sssm", "dssm_det"])
def test_scores_of_sequences_are_sums_of_the_terms(name):
    config, _, _, params, _ = made(name)
    run, batch, draws = scored(name)[0], batch_of(), 3
    each, weights = [], []
    for key in jax.random.split(KEY, draws):
        (terms, states, beliefs), _ = run(params, key, batch)
        each.append(-sum(np.float64(x).sum(axis=1) for x in terms.values()))
        z, m0, s0, m, s = (
            np.float64(x).reshape(B, -1)
            for x in (states.latent, beliefs.prior_mean, beliefs.prior_std, beliefs.mean, beliefs.std)
        )
        ratio = np.log(s / s0) + ((z - m) / s) ** 2 / 2 - ((z - m0) / s0) ** 2 / 2
        weights.append(-np.float64(terms["image"] + terms["reward"]).sum(axis=1) + ratio.sum(axis=1))
    found = jax.jit(state_space.make_score(config, SPEC), static_argnums=3)(params, KEY, batch, draws)
    np.testing.assert_allclose(found["bound"], np.mean(each, axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["tighter"], np.logaddexp.reduce(weights, axis=0) - np.log(draws), rtol=1e-4)
    if name == "dssm_det":
        np.testing.assert_allclose(found["tighter"], found["bound"], rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_what_a_key_changes(name):
    params, (run, ((terms, _, _), _)) = made(name)[3], scored(name)
    again, other = (run(params, key, batch_of())[0][0] for key in (KEY, jax.random.key(1)))
    for term, x in terms.items():
        np.testing.assert_array_equal(x, again[term])
        first_kl = slice(0, 1) if term == "kl" else slice(0, 0)  # is known before anything is drawn
        if CASES[name]["kind"] in STOCHASTIC:
            assert (x != other[term])[:, first_kl.stop :].all() or CASES[name]["kind"] != "sssm"
            assert (x != other[term]).any() or term == "kl"
        else:
            np.testing.assert_array_equal(x, other[term])


REACHES = {"vae": [], "sssm_without_actions": [], "ar": [1, 2, 3, 4], "ar_of_order_5": [1, 2, 3, 4]}


@pytest.mark.parametrize("name", CASES)
def test_actions_reach_their_own_and_later_steps_alone(name):
    """Of the bound's terms up to time 4: images of the context make the first state, without actions but for the ar."""
    _, gradient = scored(name)[1]
    reached = (gradient != 0).any(axis=(0, 2))
    assert list(np.flatnonzero(reached)) == REACHES.get(name, [3, 4])


@pytest.mark.parametrize("name", ["vae", "sssm_without_actions"])
def test_models_that_see_no_actions(name):
    _, model, _, params, _ = made(name)
    other = batch_of().replace(prev_action=np.ones((B, T, 2), np.float32))
    one, two = (scored(name)[0](params, KEY, x)[0] for x in (batch_of(), other))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    start = jax.tree.map(lambda x: x + 1, model.initial(params, B))
    step = jax.jit(lambda action: model.imagine(params, KEY, start, action))
    jax.tree.map(np.testing.assert_array_equal, step(jnp.zeros((B, 2))), step(jnp.ones((B, 2))))
