"""Environment models step by step against the paper's equations, their bound against float64, what reaches what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.fakes import SPEC, jit, random_steps, randomised
from wmjax import imagine
from wmjax.models import state_space
from wmjax.models.state_space.learner import score
from wmjax.models.state_space.model import MapState, init_params, make_model, make_modules
from wmjax.ops import jumps
from wmjax.types import ActionSpec, EnvSpec, UsageError

C, B, T, DIGITS = 8, 2, 7, 3
GRID, LATENT = (2, 2), (2, 2, C // 2)
KEY = jax.random.key(0)
CASES = {  # name -> settings
    **{kind: dict(kind=kind) for kind in state_space.KINDS},
    "ar_of_order_1": dict(kind="ar", order=1),
    "ar_of_order_5": dict(kind="ar", order=5),
    "sssm_without_actions": dict(kind="sssm", sees_actions=False),
    "sssm_with_contrast": dict(kind="sssm", contrast=3.0),
    "rar_with_contrast": dict(kind="rar", contrast=3.0),
}
DRAWN = ("sssm", "dssm_vae", "vae")


def configured(**settings):
    return state_space.StateSpaceConfig(**dict(channels=C, reward_digits=DIGITS) | settings)


def batch_of(time=T, spec=SPEC, rows=B):
    """Chunks of noise with whole rewards, all zero now and then."""
    batch = random_steps(spec, rows, time)
    return batch.replace(reward=np.rint(2 * batch.reward), is_first=np.zeros((rows, time), bool))


@functools.cache
def jitted(module):
    """Compiled once, whichever models have the module."""
    return jit(module.apply)


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
        if embed is not None and self.kind in DRAWN:
            self.posterior = self.call["posterior"]([before, mean, std, embed], self.seen(action))
        drawn = self.posterior[0] + self.posterior[1] * noise[None]
        fed = drawn if self.kind == "sssm" else mean
        maps = [before, fed] + [self.embeds[-1]] * (self.kind == "rar")
        self.state = before if self.kind == "vae" else self.call["transition"](maps, self.seen(action))
        self.latent = drawn if self.kind in DRAWN else mean

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

    @jit
    def run(params, batch):
        embed = model.encode(params, imagine.fold(batch.obs))
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
        dreamt = imagine.open_loop(model, params, KEY, last, imagine.time_first(batch.prev_action[:, 1:3]))
        flat = imagine.fold(dreamt)
        heads = [
            imagine.unfold_like(head(params, flat), dreamt) for head in (model.decode, model.features, model.reward)
        ]
        return states, beliefs, dreamt, heads

    states, beliefs, dreamt, (images, features, rewards) = run(params, batch)
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
            close(dreamt.state[h, b], episode.state[0])
            close(dreamt.latent[h, b], episode.latent[0])
            close(images[h, b], episode.image()[0])
            close(features[h, b], episode.maps().ravel())
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
    """(jitted score, its terms of `batch_of()`)."""
    config, model, parts, params, _ = made(name)
    run = jit(lambda params, key, batch: score(model, parts, config, SPEC.action, params, key, batch))
    return run, run(params, KEY, batch_of())[0]


@pytest.mark.parametrize("name", CASES)
def test_terms_of_the_bound_equal_float64(name):
    """The first three images of a chunk are context: what led to the first of them is not looked at."""
    call, batch, terms = made(name)[-1], batch_of(), scored(name)[1]
    assert set(terms) == {"image", "reward"} | ({"kl"} if CASES[name]["kind"] in DRAWN else set())
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
        terms, states, beliefs = run(params, key, batch)
        each.append(-sum(np.float64(x).sum(axis=1) for x in terms.values()))
        z, m0, s0, m, s = (
            np.float64(x).reshape(B, -1)
            for x in (states.latent, beliefs.prior_mean, beliefs.prior_std, beliefs.mean, beliefs.std)
        )
        ratio = np.log(s / s0) + ((z - m) / s) ** 2 / 2 - ((z - m0) / s0) ** 2 / 2
        weights.append(-np.float64(terms["image"] + terms["reward"]).sum(axis=1) + ratio.sum(axis=1))
    found = jit(state_space.make_score(config, SPEC), static_argnums=3)(params, KEY, batch, draws)
    np.testing.assert_allclose(found["bound"], np.mean(each, axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["tighter"], np.logaddexp.reduce(weights, axis=0) - np.log(draws), rtol=1e-4)
    if name == "dssm_det":
        np.testing.assert_allclose(found["tighter"], found["bound"], rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_what_a_key_changes(name):
    params, (run, terms) = made(name)[3], scored(name)
    again, other = (run(params, key, batch_of())[0] for key in (KEY, jax.random.key(1)))
    for term, x in terms.items():
        np.testing.assert_array_equal(x, again[term])
        first_kl = slice(0, 1) if term == "kl" else slice(0, 0)  # is known before anything is drawn
        if CASES[name]["kind"] in DRAWN:
            assert (x != other[term])[:, first_kl.stop :].all() or CASES[name]["kind"] != "sssm"
            assert (x != other[term]).any() or term == "kl"
        else:
            np.testing.assert_array_equal(x, other[term])


REACHES = {"vae": [], "sssm_without_actions": [], "ar": [1, 2, 3, 4], "ar_of_order_5": [1, 2, 3, 4]}


@pytest.mark.parametrize("name", CASES)
def test_actions_reach_their_own_and_later_steps_alone(name):
    """Of the bound's terms up to time 4: images of the context make the first state, without actions but for the ar."""
    config, model, parts, params, _ = made(name)
    batch = batch_of()

    @jit
    @jax.grad
    def gradient(action):
        given = batch.replace(prev_action=action)
        terms = score(model, parts, config, SPEC.action, params, KEY, given)[0]
        return sum(x[:, :2].sum() for x in terms.values())

    reached = (np.asarray(gradient(batch.prev_action)) != 0).any(axis=(0, 2))
    assert list(np.flatnonzero(reached)) == REACHES.get(name, [3, 4])


@pytest.mark.parametrize("name", ["vae", "sssm_without_actions"])
def test_models_that_see_no_actions(name):
    _, model, _, params, _ = made(name)
    other = batch_of().replace(prev_action=np.ones((B, T, 2), np.float32))
    for one, two in zip(*(jax.tree.leaves(scored(name)[0](params, KEY, x)) for x in (batch_of(), other)), strict=True):
        np.testing.assert_array_equal(one, two)
    start = jax.tree.map(lambda x: x + 1, model.initial(params, B))
    step = jit(lambda action: model.imagine(params, KEY, start, action))
    jax.tree.map(np.testing.assert_array_equal, step(jnp.zeros((B, 2))), step(jnp.ones((B, 2))))


def test_a_model_with_a_background_begins_at_it():
    """Whatever the state; from there everything learns, the decoder's last layer first."""
    config = configured(contrast=3.0)
    model, learner = state_space.make(config, SPEC)
    image = np.random.default_rng(0).uniform(0.01, 0.99, SPEC.obs_shape).astype(np.float32)
    state = learner.init(KEY)
    state = state.replace(params=state_space.with_background(state.params, image))
    last = jax.tree.map(lambda x: jax.random.normal(KEY, x.shape), model.initial(state.params, B))
    drawn = jax.nn.sigmoid(jit(model.decode)(state.params, last))
    np.testing.assert_allclose(drawn, np.broadcast_to(image, drawn.shape), atol=1e-5)
    update, begun = jit(learner.update), state.params
    for _ in range(3):
        state = update(state, KEY, batch_of())[0]
    for (path, old), new in zip(jax.tree.leaves_with_path(begun), jax.tree.leaves(state.params), strict=True):
        assert np.isfinite(new).all() and (old != new).any(), jax.tree_util.keystr(path)
    learnt = jit(jax.grad(lambda params: model.encode(params, batch_of().obs[:, 0]).sum()))(state.params)
    assert (learnt["background"] == 0).all(), "it learns from what is drawn alone"
    with pytest.raises(KeyError, match="background"):
        state_space.with_background(made("sssm")[3], image)
    with pytest.raises(AssertionError):
        state_space.with_background(begun, image[..., :1])


def test_latents_cost_little_at_first():
    config = configured(kl_updates=100)
    weights = [state_space.learner.kl_weight(config, jnp.int32(updates)) for updates in (0, 25, 50, 100, 1000)]
    np.testing.assert_allclose(weights, [1e-8, 1e-6, 1e-4, 1, 1], rtol=1e-5)
    _, learner = state_space.make(config, SPEC)
    state = learner.init(KEY)
    for updates, weight in ((0, 1e-8), (50, 1e-4), (2**31 - 2, 1)):
        metrics = jit(learner.update)(state.replace(updates=jnp.int32(updates)), KEY, batch_of())[1]
        bound = metrics["image"] + metrics["reward"]
        np.testing.assert_allclose(metrics["loss"], bound + weight * metrics["kl"], rtol=1e-5)
        np.testing.assert_allclose(metrics["kl_weight"], weight, rtol=1e-5)


def conv(kernel, inputs, outputs):
    return kernel * kernel * inputs * outputs + outputs


def counts(config, spec):
    shapes = jax.eval_shape(lambda: init_params(KEY, config, spec))
    return {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in shapes.items()}


def test_numbers_of_parameters_at_the_papers_size():
    """Figs. 9 to 14: 18 actions, images of 200 x 160 x 3, states of 25 x 20 x 64; 8 digits, a sign and a zero."""
    spec = EnvSpec((200, 160, 3), np.dtype(np.uint8), ActionSpec(18, True, 0, 17))
    head = conv(3, 32, 32) + conv(3, 32, 64)
    res = conv(5, 32, 32) + conv(3, 32, 64)
    by_hand = dict(
        encoder=conv(3, 48, 16) + conv(5, 16, 16) + conv(3, 16, 64) + conv(3, 256, 32) + res,
        start=conv(1, 192, 64) + 2 * conv(3, 64, 64),
        prior=conv(1, 64 + 18, 32) + head,
        transition=conv(3, 64 + 32 + 18, 32) + res + conv(3, 64, 32) + conv(3, 64 + 32, 32) + res,
        decoder=conv(1, 96, 32) + res + conv(3, 16, 64) + conv(3, 64, 64) + conv(1, 64, 48),
        reward=conv(3, 96, 24) + (25 * 20 * 24 + 1) * 10,
        posterior=conv(1, 64 + 32 + 32 + 64 + 18, 32) + head,
    )
    assert by_hand["prior"] == 2_656 + 9_248 + 18_496 and by_hand["reward"] == 20_760 + 120_010
    found = {kind: counts(state_space.StateSpaceConfig(kind=kind), spec) for kind in state_space.KINDS}
    assert found["sssm"] == found["dssm_vae"] == by_hand
    del by_hand["posterior"]
    assert found["dssm_det"] == by_hand
    assert found["rar"] == by_hand | dict(transition=by_hand["transition"] + 9 * 64 * 32)
    assert found["ar"] == by_hand | dict(start=by_hand["start"] + 36 * 64)
    assert found["vae"].keys() == {"encoder", "start", "prior", "decoder", "reward", "posterior"}
    assert found["vae"]["prior"] == by_hand["prior"] - 18 * 32


@pytest.mark.parametrize("jump", [1, 2, 3])
def test_subsample_equals_loops(jump):
    rng, steps, size = np.random.default_rng(0), 4, 2
    time = jumps.rows(steps, jump)
    assert time == 1 + 3 * jump
    obs, action, reward = rng.normal(size=(B, time, 3)), rng.normal(size=(B, time, size)), rng.normal(size=(B, time))
    found = jumps.subsample(*(jnp.asarray(x, jnp.float32) for x in (obs, action, reward)), jump)
    plain = np.zeros((B, steps, 3)), np.zeros((B, steps, jump * size)), np.zeros((B, steps))
    for b, t in np.ndindex(B, steps):
        plain[0][b, t] = obs[b, t * jump]
        for i in range(jump if t else 0):
            arrival = (t - 1) * jump + 1 + i
            plain[1][b, t, i * size : (i + 1) * size] = action[b, arrival]
            plain[2][b, t] += reward[b, arrival]
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


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
    wide = EnvSpec(SPEC.obs_shape, SPEC.obs_dtype, ActionSpec(4, False, -1.0, 1.0))
    other = batch.replace(prev_action=pairs, obs=batch.obs[:, ::2], reward=sums)

    def terms(config, spec, batch):
        return jit(lambda x: score(*make_model(config, spec), config, spec.action, params, KEY, x)[0])(batch)

    one, two = terms(jumpy, SPEC, batch), terms(configured(), wide, other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one, two)
    assert one["image"].shape == (B, steps)
    state, metrics = jit(learner.update)(jit(learner.init)(KEY), KEY, batch)
    assert metrics["grad_finite"].all() and metrics["grad_norm"] > 0 and int(state.updates) == 1
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
    state, metrics = jit(learner.update)(learner.init(KEY), KEY, batch_of())
    assert metrics["grad_norm"] > 1
    assert optax.global_norm(optax.tree.get(state.opt_state, "mu")) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kind="ssm"), "kind 'ssm'"),
        (dict(channels=12), "channels 12"),
        (dict(channels=0), "channels 0"),
        (dict(reward_digits=0), "reward_digits 0"),
        (dict(order=17), "order 17"),
        (dict(jump=0), "jump 0"),
        (dict(learning_rate=0.0), "learning_rate 0.0"),
        (dict(learning_rate=float("nan")), "learning_rate nan"),
        (dict(clip_norm=0.0), "clip_norm 0.0"),
        (dict(latent_std=0.0), "latent_std 0.0"),
        (dict(latent_std=float("inf")), "latent_std inf"),
        (dict(contrast=-1.0), "contrast -1.0: must be finite and at least 0"),
        (dict(contrast=float("nan")), "contrast nan: must be finite"),
        (dict(kl_updates=-1), "kl_updates -1: must be finite and at least 0"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(UsageError) as error:
        configured(**settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(84, 80, 1), (80, 84, 1)])
def test_refuses_images_that_are_no_multiple_of_8(shape):
    with pytest.raises(UsageError, match=f"images of {shape[0]} x {shape[1]}: .* multiples of 8"):
        state_space.make(configured(), SPEC._replace(obs_shape=shape))
