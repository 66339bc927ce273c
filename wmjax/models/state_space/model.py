"""Environment models that roll out in pixels, or in a compact state (Buesing et al. 2018, section 2 and appendix A).

    s state, z latent, m mean of its prior p(z' | s, a), a action that led here, e embedding of an image; feature maps

    sssm      s' = g(s, z', a)       image ~ d(s', z')
    dssm_vae  s' = g(s, m', a)       image ~ d(s', z')
    dssm_det  s' = g(s, m', a)       image ~ d(s', m')
    rar       s' = g(s, m', a, e)    image ~ d(s', m')
    ar        s' = g(h, m', a)       image ~ d(s', m')    h = start(the last K images and the actions between them)
    vae       s' = s                 image ~ d(s, z')     z' ~ p(z' | s): frame-wise, without temporal dependence

An episode's first three images make its first state, the first image in place of those that are still missing, with a
latent of zeros. Where there is a z each image after them brings its posterior, q(z' | s, m', a, e').

With a `contrast` (not in the paper) there is a background, the logits of one image, grey until `with_background`: the
encoder is given `contrast` times the difference between an image and the background's, and the decoder's logits are
added to the background's, which learns from what is drawn alone. Games need it (docs/lab/2026-11-22-mspacman.md):
sprites are a few pixels, too little to be found among those of a maze and under the noise of random first logits.

Models in pixels (rar, ar) render and embed an image for every imagined step. No image is embedded twice: a state has
the embeddings of the newest ones (the paper's caching of the vision preprocessing).
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from wmjax.models.state_space.config import CONTEXT, STOCHASTIC, map_of, model_action_size, padded_shape
from wmjax.nets import state_space as nets
from wmjax.nets.casting import make_apply
from wmjax.ops import bernoulli, reward_bits
from wmjax.ops.axes import where_rows
from wmjax.ops.frames import unit_pixels
from wmjax.types import Array, WorldModel, image_of

IN_PIXELS = ("rar", "ar")


@struct.dataclass
class Context:
    """What a sequence has shown so far: the model's memory of images and of the actions between them."""

    embeddings: Array  # float32 [B, X, Y, N * C], of the newest N images, oldest first
    actions: Array  # float32 [B, (K - 1) * A], that led to the newest of them; of the ar alone
    seen: Array  # float32 [B], images of the episode so far, up to CONTEXT + 1


@struct.dataclass
class MapState:
    """One row for each sequence; X, Y: the image's sides over the two blocks, rounded up."""

    state: Array  # float32 [B, X, Y, C]
    latent: Array  # float32 [B, X, Y, C / 2], what the image is made of beside the state
    context: Context


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
        encoder=nets.FrameEncoder(size, config.encoder_width, config.blocks),
        start=nets.InitialState(size),
        prior=nets.LatentHead(size, config.latent_std),
        transition=nets.Transition(size),
        decoder=nets.FrameDecoder(config.decoder_width, env_spec.obs_shape[-1], config.blocks),
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
        encoder=[jnp.zeros((1, *padded_shape(config, env_spec.obs_shape)))],
        start=[zero.context.embeddings, zero.context.actions],
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

    image: float32 [rows, columns, c] in [0, 1], the mean of the training images, say.
    """
    chex.assert_equal_shape((params["background"], image))
    chex.assert_type(image, float)
    return params | dict(background=bernoulli.logits(image))


def uses_actions(config):
    """Whether the model is given actions."""
    return config.sees_actions and config.kind != "vae"


def used(config, action):
    """What a model is given of actions [B, A]: all, or none, [B, 0]."""
    return action if uses_actions(config) else action[:, :0]


def context_length(config):
    """N, the images whose embeddings a state has."""
    return config.order if config.kind == "ar" else CONTEXT


def empty_state(config, env_spec, batch):
    """Zeros, each array with memory of its own: one may not be donated twice."""
    grid, size = map_of(config, env_spec.obs_shape), config.channels
    keeps_actions = config.kind == "ar" and uses_actions(config)
    actions = (config.order - 1) * model_action_size(config, env_spec.action) if keeps_actions else 0

    def zeros(*shape):
        return jnp.zeros((batch, *shape), jnp.float32)

    state, latent = zeros(*grid, size), zeros(*grid, size // 2)
    return MapState(state, latent, Context(zeros(*grid, context_length(config) * size), zeros(actions), zeros()))


def repeated(config, embed):
    """Embeddings [B, X, Y, N * C] where one image, [B, X, Y, C], stands in place of those that are still missing."""
    return jnp.concatenate([embed] * context_length(config), axis=-1)


def push(context, embed, action):
    """The Context one step later, `seen` left as it is. embed: [B, X, Y, C]; action: [B, A], or [B, 0] if not used."""
    embeddings = jnp.concatenate([context.embeddings, embed], axis=-1)[..., embed.shape[-1] :]
    actions = jnp.concatenate([context.actions, action], axis=-1)
    return context.replace(embeddings=embeddings, actions=actions[:, actions.shape[1] - context.actions.shape[1] :])


def first_state(apply, params, context):
    """The state, [B, X, Y, C], that the newest images and the actions between them make."""
    return apply(params, "start", context.embeddings, context.actions)


def embed_image(config, apply, params, image):
    """Embedding, [B, X, Y, C], of images in [0, 1], or of their deviations, with zeros below and at the right."""
    if config.contrast:
        background = jax.lax.stop_gradient(bernoulli.mean(params["background"]))
        image = config.contrast * (image - background[None])
    rows, columns, _ = padded_shape(config, image.shape[1:])
    image = jnp.pad(image, ((0, 0), (0, rows - image.shape[1]), (0, columns - image.shape[2]), (0, 0)))
    return apply(params, "encoder", image)


def make_cell(config, apply):
    """(posterior_step, prior_step) of a state and its latent; both leave the context as it is.

    posterior_step: (params, key, state, action, embed) -> (state, Beliefs);
    prior_step: (params, key, state, action) -> state.
    apply: as in `make_model`; action: [B, A], or [B, 0] where the model uses none.
    """
    kind, size = config.kind, config.channels

    def previous_state(params, state):
        """The map that a step starts from."""
        return first_state(apply, params, state.context) if kind == "ar" else state.state

    def sample(key, mean, std):
        return mean + std * jax.random.normal(key, mean.shape) if kind in STOCHASTIC else mean

    def transition(params, before, state, latent, prior_mean, action):
        """The state after a step from the map `before`. latent: of the step."""
        if kind == "vae":
            return state.replace(state=before, latent=latent)
        newest = [state.context.embeddings[..., -size:]] if kind == "rar" else []
        inputs = [before, latent if kind == "sssm" else prior_mean, *newest]
        return state.replace(state=apply(params, "transition", inputs, action), latent=latent)

    def posterior_step(params, key, state, action, embed):
        before = previous_state(params, state)
        prior_mean, prior_std = mean, std = apply(params, "prior", [before], action)
        if kind in STOCHASTIC:
            mean, std = apply(params, "posterior", [before, prior_mean, prior_std, embed], action)
        after = transition(params, before, state, sample(key, mean, std), prior_mean, action)
        return after, Beliefs(prior_mean, prior_std, mean, std)

    def prior_step(params, key, state, action):
        before = previous_state(params, state)
        mean, std = apply(params, "prior", [before], action)
        return transition(params, before, state, sample(key, mean, std), mean, action)

    return posterior_step, prior_step


def make_start(config, env_spec, apply):
    """`Parts.start`: the state that the first images of an episode make."""

    def start(params, embeddings, actions):
        state = empty_state(config, env_spec, embeddings.shape[0])
        context = state.context.replace(embeddings=repeated(config, embeddings[:, 0]))
        for i in range(embeddings.shape[1]):
            context = push(context, embeddings[:, i], used(config, actions[:, i]))
        first = first_state(apply, params, context)
        return state.replace(state=first, context=context.replace(seen=context.seen + embeddings.shape[1]))

    return start


def make_observe(config, apply, follow):
    """`WorldModel.observe`: `Parts.follow`, but an episode's first CONTEXT images make its first state."""

    def observe(params, key, state, prev_action, embed, is_first):
        blank = state.context.replace(embeddings=repeated(config, embed), actions=jnp.zeros_like(state.context.actions))
        state = where_rows(is_first, state.replace(context=blank), state)
        prev_action = jnp.where(is_first[:, None], 0.0, prev_action)
        seen = jnp.where(is_first, 1.0, jnp.minimum(state.context.seen + 1.0, CONTEXT + 1.0))
        followed, beliefs = follow(params, key, state, prev_action, embed, is_first)
        first = first_state(apply, params, followed.context)
        begun = followed.replace(state=first, latent=jnp.zeros_like(state.latent))
        zero, one = jnp.zeros_like(state.latent), jnp.ones_like(state.latent)
        after, beliefs = where_rows(seen <= CONTEXT, (begun, Beliefs(zero, one, zero, one)), (followed, beliefs))
        return after.replace(context=after.context.replace(seen=seen)), beliefs

    return observe


def make_heads(config, env_spec, apply):
    """(features, reward_logits, discount, decode), each of (params, state)."""

    def features(params, state):
        """What every head is given, [B, X, Y, 3 C / 2]."""
        return jnp.concatenate([state.state, state.latent], axis=-1)

    def reward_logits(params, state):
        return apply(params, "reward", features(params, state))

    def discount(params, state):
        return jnp.ones(state.context.seen.shape)  # the paper predicts no ends of episodes

    def decode(params, state):
        rows, columns, _ = env_spec.obs_shape
        logits = apply(params, "decoder", features(params, state))[:, :rows, :columns]
        return logits + params["background"][None] if config.contrast else logits

    return features, reward_logits, discount, decode


def make_model(config, env_spec):
    """(WorldModel, Parts). Its aux are the Beliefs of each step; decode gives logits of pixels in [0, 1].

    Actions are float32 [B, jump * A]. Features are the state and the latent side by side, a grid.
    """
    apply = make_apply(config, make_modules(config, env_spec))
    posterior_step, prior_step = make_cell(config, apply)
    features, reward_logits, discount, decode = make_heads(config, env_spec, apply)

    def initial(params, batch):
        return empty_state(config, env_spec, batch)

    def encode(params, obs):
        """obs uint8 [B, rows, columns, c] -> [B, X, Y, C]."""
        return embed_image(config, apply, params, unit_pixels(image_of(obs)))

    def follow(params, key, state, prev_action, embed, is_first):
        action = used(config, prev_action)
        after, beliefs = posterior_step(params, key, state, action, embed)
        return after.replace(context=push(state.context, embed, action)), beliefs

    def imagine(params, key, state, action):
        action = used(config, action)
        after = prior_step(params, key, state, action)
        if config.kind not in IN_PIXELS:
            return after
        embed = embed_image(config, apply, params, bernoulli.mean(decode(params, after)))
        return after.replace(context=push(state.context, embed, action))

    def reward(params, state):
        return reward_bits.mean(reward_logits(params, state))

    observe = make_observe(config, apply, follow)
    shape = (*map_of(config, env_spec.obs_shape), config.channels + config.channels // 2)
    model = WorldModel(initial, encode, observe, imagine, features, reward, discount, decode, shape)
    return model, Parts(make_start(config, env_spec, apply), follow, reward_logits)
