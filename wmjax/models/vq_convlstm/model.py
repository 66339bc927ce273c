"""A grid of discrete codes and a two-cell ConvLSTM that predicts the next one (Robine et al. 2023, section 3).

    z latent grid (codebook vectors), a action that led here, h cells

    h' = ConvLSTM(h, z, a')     prior  z' ~ codes(h', a')     posterior  z' = codes nearest to encoder(o')    r'(h', a')

The posterior needs no memory, and an episode begins with an empty one. Features are z alone: the paper's policy sees
nothing else. Episodes do not end by the model (the paper ends all of them after 50 steps). The latents may be of other
kinds, see `latents.py`.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from wmjax.models.vq_convlstm.config import grid_of
from wmjax.models.vq_convlstm.latents import make_latents
from wmjax.nets.grid_dynamics import AutoregressiveHead, GridDynamics, GridHead, GridReward
from wmjax.nets.vqvae import GridDecoder, GridEncoder, GridMoments
from wmjax.ops import bernoulli, continuous_bernoulli
from wmjax.ops import vector_quantisation as vq
from wmjax.ops.frames import unit_pixels
from wmjax.types import Array, WorldModel, image_of

REWARDS = (-1.0, 0.0, 1.0)  # what the reward head chooses from


@struct.dataclass
class GridState:
    """One row for each sequence; X, Y, D: a latent's shape."""

    latent: Array  # float32 [B, X, Y, D]
    cells: tuple[tuple[Array, Array], ...]  # (h, c) of each ConvLSTM, float32 [B, X, Y, C]
    action: Array  # float32 [B, A], the one that led here


def make_modules(config, obs_shape):
    """(modules, latents): the flax modules of one time step by the name of their parameters, and the Latents."""
    latents = make_latents(config, grid_of(config, obs_shape))
    encoder = GridEncoder if config.latent == "discrete" else GridMoments
    head = GridHead if config.predictor == "independent" else AutoregressiveHead
    return dict(
        encoder=encoder(config.encoder_widths, config.code_size, config.encoder_kernel),
        decoder=GridDecoder(config.decoder_widths, obs_shape[-1], config.encoder_kernel),
        dynamics=GridDynamics(widths_of(config), 1 if latents.shape[:2] == (1, 1) else config.kernel),
        latent_head=head(latents.prior_size),
        reward=GridReward(config.reward_channels, config.reward_hidden),
    ), latents


def widths_of(config):
    """Channels of every ConvLSTM; an autoregressive predictor has one alone."""
    return config.cells if config.predictor == "independent" else config.cells[:1]


def init_params(key, config, env_spec):
    """Parameters of every module by name, the `codebook`, and `running`, the statistics of the encoder's batch norm."""
    modules, latents = make_modules(config, env_spec.obs_shape)
    keys = dict(zip((*modules, "codebook"), jax.random.split(key, len(modules) + 1), strict=True))
    start = empty_state(config, env_spec, 1)
    seen = (start.cells[-1][0], start.action)
    inputs = dict(
        encoder=[jnp.zeros((1, *env_spec.obs_shape))],
        decoder=[latents.grid(start.latent)],
        dynamics=[start.cells, start.latent, start.action],
        latent_head=[*seen, start.latent],
        reward=seen,
    )
    params = {name: module.init(keys[name], *inputs[name]) for name, module in modules.items()}
    if config.latent == "discrete":
        params["codebook"] = vq.init(keys["codebook"], config.codes, config.code_size)
    image = jax.ShapeDtypeStruct((1, *env_spec.obs_shape), jnp.float32)
    _, statistics = jax.eval_shape(modules["encoder"].apply, params["encoder"], image)
    params["running"] = tuple((jnp.zeros(mean.shape), jnp.ones(variance.shape)) for mean, variance in statistics)
    return params


def empty_state(config, env_spec, batch):
    """Zeros, each array with memory of its own: one may not be donated twice."""
    shape = make_latents(config, grid_of(config, env_spec.obs_shape)).shape
    grid = (batch, *shape[:2])
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    cells = tuple((zeros((*grid, width)), zeros((*grid, width))) for width in widths_of(config))
    return GridState(zeros((batch, *shape)), cells, zeros((batch, env_spec.action.size)))


def pixel_likelihood(config):
    """The module of wmjax.ops with `log_prob` and `mean` of the decoder's logits."""
    return continuous_bernoulli if config.likelihood == "continuous_bernoulli" else bernoulli


def make_codes(config, env_spec):
    """A function (params, state) -> int32 [B, X, Y], the codes of a state: to look at, and to count which are right."""
    latents = make_latents(config, grid_of(config, env_spec.obs_shape))
    return lambda params, state: latents.codes(params, state.latent)


def make_draw(config, modules, latents):
    """(params, key, hidden, action) -> the next latent, drawn from the dynamics' prediction."""

    def at_once(params, key, hidden, action):
        return latents.prior_sample(
            params, key, modules["latent_head"].apply(params["latent_head"], hidden, action, None)
        )

    def one_by_one(params, key, hidden, action):
        columns = latents.shape[1]

        def fill(i, latent):
            prior = modules["latent_head"].apply(params["latent_head"], hidden, action, latent)
            at = (i // columns, i % columns)
            drawn = latents.prior_sample(params, jax.random.fold_in(key, i), prior[:, at[0], at[1]])
            return latent.at[:, at[0], at[1]].set(drawn)

        empty = jnp.zeros((hidden.shape[0], *latents.shape))
        return jax.lax.fori_loop(0, latents.shape[0] * columns, fill, empty)

    return at_once if config.predictor == "independent" else one_by_one


def make_model(config, env_spec):
    """The WorldModel of `config`. Its aux is empty: the loss asks for priors by itself; decode gives the logits of
    `pixel_likelihood`."""
    modules, latents = make_modules(config, env_spec.obs_shape)
    shape = latents.shape[2:] if latents.shape[:2] == (1, 1) else latents.shape  # of the features: a vector or a grid
    draw = make_draw(config, modules, latents)

    def transition(params, state, action):
        return modules["dynamics"].apply(params["dynamics"], state.cells, state.latent, action)

    def initial(params, batch):
        return empty_state(config, env_spec, batch)

    def encode(params, obs):
        """obs uint8 [B, H, W, C] -> the encoder's embedding [B, X, Y, E], not yet quantised."""
        return latents.embed(
            modules["encoder"].apply(params["encoder"], unit_pixels(image_of(obs)), params["running"])[0]
        )

    def observe(params, key, state, prev_action, embed, is_first):
        def unless_first(x):
            return jnp.where(is_first.reshape(-1, *(1,) * (x.ndim - 1)), 0.0, x)

        cells = transition(params, state, prev_action)
        cells, action = jax.tree.map(unless_first, (cells, prev_action))
        return GridState(latents.posterior_sample(params, key, embed), cells, action), ()

    def imagine(params, key, state, action):
        cells = transition(params, state, action)
        return GridState(draw(params, key, cells[-1][0], action), cells, action)

    def features(params, state):
        return state.latent.reshape(-1, *shape)

    def reward(params, state):
        """The mean of the categorical over -1, 0 and 1; the paper draws one of them."""
        logits = modules["reward"].apply(params["reward"], state.cells[-1][0], state.action)
        return jax.nn.softmax(logits) @ jnp.array(REWARDS)

    def discount(params, state):
        return jnp.ones(state.action.shape[0])

    def decode(params, state):
        return modules["decoder"].apply(params["decoder"], latents.grid(state.latent))

    return WorldModel(initial, encode, observe, imagine, features, reward, discount, decode, shape)


def through_reconstructions(config, env_spec, model):
    """The same model with the pixels of its reconstructed images, in [0, 1], as features (section 4.3, Q3)."""

    def features(params, state):
        return pixel_likelihood(config).mean(model.decode(params, state))

    return model._replace(features=features, feature_shape=env_spec.obs_shape)
