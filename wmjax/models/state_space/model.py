"""Environment models that roll out in pixels, or in a compact state (Buesing et al. 2018, section 2 and appendix A).

    s state, z latent, m mean of its prior p(z' | s, a), a action that led here, e embedding of an image; feature maps

    sssm      s' = g(s, z', a)       image ~ d(s', z')
    dssm_vae  s' = g(s, m', a)       image ~ d(s', z')
    dssm_det  s' = g(s, m', a)       image ~ d(s', m')
    rar       s' = g(s, m', a, e)    image ~ d(s', m')
    ar        s' = g(h, m', a)       image ~ d(s', m')    h = start(the last K images and the actions between them)
    vae       s' = s                 image ~ d(s, z')     z' ~ p(z' | s): frames know nothing of each other

An episode's first three images make its first state, the first image in place of those that are still missing, with a
latent of zeros. Where there is a z each image after them brings its posterior, q(z' | s, m', a, e').

With a `contrast` (not in the paper) there is a background, the logits of one image, grey until `with_background`: the
encoder is given `contrast` times the difference between an image and the background's, and the decoder's logits are
added to the background's, which learns from what is drawn alone. Games need it (docs/lab/2026-11-22-mspacman.md):
sprites are a few pixels, too little to be found among those of a maze and under the noise of random first logits.

Models in pixels (rar, ar) render and embed an image for every imagined step. No image is embedded twice: a state has
the embeddings of the newest ones (the paper's caching of the vision preprocessing).
"""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from wmjax.models.state_space.config import CONTEXT, STOCHASTIC, map_of, model_action_size
from wmjax.nets import state_space as nets
from wmjax.ops import bernoulli, reward_bits
from wmjax.ops.frames import unit_pixels
from wmjax.types import Array, WorldModel, image_of

IN_PIXELS = ("rar", "ar")


@struct.dataclass
class MapState:
    """One row for each sequence; X, Y: an eighth of the image's sides."""

    state: Array  # float32 [B, X, Y, C]
    latent: Array  # float32 [B, X, Y, C / 2], what the image is made of beside the state
    embeddings: Array  # float32 [B, X, Y, N * C], of the newest N images, oldest first
    actions: Array  # float32 [B, (K - 1) * A], that led to the newest of them; of the ar alone
    seen: Array  # float32 [B], images of the episode so far, up to CONTEXT + 1


@struct.dataclass
class Beliefs:
    """Prior and posterior of a step's latent, float32 [B, X, Y, C / 2] each; without a posterior the prior stands."""

    prior_mean: Array
    prior_std: Array
    mean: Array
    std: Array


class Parts(NamedTuple):
    """The model in pieces, for its learner: `follow` is `observe` without what a new episode needs."""

    start: Any  # (params, embeddings [B, N, X, Y, C], actions [B, N, A]) -> MapState
    follow: Any  # as WorldModel.observe, is_first unused
    reward_logits: Any  # (params, state) -> [B, digits + 2]


def make_modules(config, env_spec):
    """The flax modules of one time step, by the name of their parameters."""
    size = config.channels
    modules = dict(
        encoder=nets.FrameEncoder(size, config.encoder_width),
        start=nets.InitialState(size),
        prior=nets.LatentHead(size, config.latent_std),
        transition=nets.Transition(size),
        decoder=nets.FrameDecoder(config.decoder_width, env_spec.obs_shape[-1]),
        reward=nets.RewardBits(size, config.reward_digits + 2),
    )
    if config.kind in STOCHASTIC:
        modules["posterior"] = nets.LatentHead(size, config.latent_std)
    if config.kind == "vae":
        del modules["transition"]
    return modules


def init_params(key, config, env_spec):
    """Parameters of every module: a dict by module name."""
    modules = make_modules(config, env_spec)
    keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
    zero = empty_state(config, env_spec, 1)
    state, latent = zero.state, zero.latent
    action = jnp.zeros((1, model_action_size(config, env_spec.action) if uses_actions(config) else 0))
    inputs = dict(
        encoder=[jnp.zeros((1, *env_spec.obs_shape))],
        start=[zero.embeddings, zero.actions],
        prior=[[state], action],
        posterior=[[state, latent, latent, state], action],
        transition=[[state, latent] + [state] * (config.kind == "rar"), action],
        decoder=[jnp.concatenate([state, latent], axis=-1)],
        reward=[jnp.concatenate([state, latent], axis=-1)],
    )
    params = {name: module.init(keys[name], *inputs[name]) for name, module in modules.items()}
    fine = params["decoder"]["params"]["fine"]
    fine["Conv_2"] = jax.tree.map(lambda x: config.last_layer_scale * x, fine["Conv_2"])
    return params | ({"background": jnp.zeros(env_spec.obs_shape)} if config.contrast else {})


def with_background(params, image):
    """Parameters of a model with contrast, not yet trained, whose images are deviations from this one.

    image: float32 [8 X, 8 Y, c] in [0, 1], the mean of the training images, say.
    """
    chex.assert_equal_shape((params["background"], image))
    chex.assert_type(image, float)
    return params | dict(background=bernoulli.logits(image))


def uses_actions(config):
    """Whether the model is given actions."""
    return config.sees_actions and config.kind != "vae"


def context_length(config):
    """N, the images whose embeddings a state has."""
    return config.order if config.kind == "ar" else CONTEXT


def empty_state(config, env_spec, batch):
    """Zeros, each array with memory of its own: one may not be donated twice."""
    grid, size = map_of(env_spec.obs_shape), config.channels
    old = (
        (config.order - 1) * model_action_size(config, env_spec.action)
        if config.kind == "ar" and uses_actions(config)
        else 0
    )
    shapes = ((*grid, size), (*grid, size // 2), (*grid, context_length(config) * size), (old,), ())
    return MapState(*(jnp.zeros((batch, *shape), jnp.float32) for shape in shapes))


def make_model(config, env_spec):
    """(WorldModel, Parts). Its aux are the Beliefs of each step; decode gives logits of pixels in [0, 1].

    Actions are float32 [B, jump * A]. Features are the state and the latent, flat.
    """
    modules = make_modules(config, env_spec)
    size, kind = config.channels, config.kind

    def apply(params, name, *args):
        return modules[name].apply(params[name], *args)

    def given(action):
        return action if uses_actions(config) else action[:, :0]

    def previous_state(params, state):
        """The map that a step starts from."""
        return apply(params, "start", state.embeddings, state.actions) if kind == "ar" else state.state

    def transition(params, before, state, latent, action):
        """The state after `before`; latent: of the step."""
        if kind == "vae":
            return before
        newest = [state.embeddings[..., -size:]] if kind == "rar" else []
        return apply(params, "transition", [before, latent, *newest], given(action))

    def push_context(state, embed, action):
        """What a state has of images and actions, one step later."""
        embeddings = jnp.concatenate([state.embeddings, embed], axis=-1)[..., size:]
        actions = jnp.concatenate([state.actions, given(action)], axis=-1)
        return dict(embeddings=embeddings, actions=actions[:, actions.shape[1] - state.actions.shape[1] :])

    def embed_image(params, image):
        """Embedding of an image in [0, 1]."""
        if config.contrast:
            background = jax.lax.stop_gradient(bernoulli.mean(params["background"]))
            image = config.contrast * (image - background[None])
        return apply(params, "encoder", image)

    def initial(params, batch):
        return empty_state(config, env_spec, batch)

    def encode(params, obs):
        """obs uint8 [B, 8 X, 8 Y, C] -> [B, X, Y, channels]."""
        return embed_image(params, unit_pixels(image_of(obs)))

    def follow(params, key, state, prev_action, embed, is_first):
        before = previous_state(params, state)
        prior_mean, prior_std = apply(params, "prior", [before], given(prev_action))
        mean, std = prior_mean, prior_std
        if kind in STOCHASTIC:
            mean, std = apply(params, "posterior", [before, prior_mean, prior_std, embed], given(prev_action))
        latent = sample(key, mean, std)
        after = transition(params, before, state, latent if kind == "sssm" else prior_mean, prev_action)
        kept = push_context(state, embed, prev_action)
        return state.replace(state=after, latent=latent, **kept), Beliefs(prior_mean, prior_std, mean, std)

    def sample(key, mean, std):
        return mean + std * jax.random.normal(key, mean.shape) if kind in STOCHASTIC else mean

    def start(params, embeddings, actions):
        state = empty_state(config, env_spec, embeddings.shape[0])
        state = state.replace(embeddings=jnp.concatenate([embeddings[:, 0]] * context_length(config), axis=-1))
        for i in range(embeddings.shape[1]):
            state = state.replace(**push_context(state, embeddings[:, i], actions[:, i]))
        first = apply(params, "start", state.embeddings, state.actions)
        return state.replace(state=first, seen=state.seen + embeddings.shape[1])

    def observe(params, key, state, prev_action, embed, is_first):
        def where(chosen, one, other):
            return jax.tree.map(lambda x, y: jnp.where(chosen.reshape(-1, *(1,) * (x.ndim - 1)), x, y), one, other)

        blank = state.replace(
            embeddings=jnp.concatenate([embed] * context_length(config), axis=-1), actions=jnp.zeros_like(state.actions)
        )
        state = where(is_first, blank, state)
        prev_action = jnp.where(is_first[:, None], 0.0, prev_action)
        seen = jnp.where(is_first, 1.0, jnp.minimum(state.seen + 1.0, CONTEXT + 1.0))
        followed, beliefs = follow(params, key, state, prev_action, embed, is_first)
        begun = followed.replace(
            state=apply(params, "start", followed.embeddings, followed.actions), latent=jnp.zeros_like(state.latent)
        )
        zero, one = jnp.zeros_like(state.latent), jnp.ones_like(state.latent)
        after, beliefs = where(seen <= CONTEXT, (begun, Beliefs(zero, one, zero, one)), (followed, beliefs))
        return after.replace(seen=seen), beliefs

    def imagine(params, key, state, action):
        before = previous_state(params, state)
        mean, std = apply(params, "prior", [before], given(action))
        latent = sample(key, mean, std)
        after = transition(params, before, state, latent if kind == "sssm" else mean, action)
        after = state.replace(state=after, latent=latent)
        if kind not in IN_PIXELS:
            return after
        image = bernoulli.mean(decode(params, after))
        return after.replace(**push_context(state, embed_image(params, image), action))

    def maps(state):
        return jnp.concatenate([state.state, state.latent], axis=-1)

    def features(params, state):
        return maps(state).reshape(state.state.shape[0], -1)

    def reward_logits(params, state):
        return apply(params, "reward", maps(state))

    def reward(params, state):
        return reward_bits.mean(reward_logits(params, state))

    def discount(params, state):
        return jnp.ones(state.seen.shape)  # the paper predicts no ends of episodes

    def decode(params, state):
        logits = apply(params, "decoder", maps(state))
        return logits + params["background"][None] if config.contrast else logits

    shape = (math.prod(map_of(env_spec.obs_shape)) * (size + size // 2),)
    model = WorldModel(initial, encode, observe, imagine, features, reward, discount, decode, shape)
    return model, Parts(start, follow, reward_logits)
