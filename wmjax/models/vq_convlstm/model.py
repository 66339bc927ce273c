"""A grid of discrete codes and a two-cell ConvLSTM that predicts the next one (Robine et al. 2023, section 3).

    z latent grid (codebook vectors), a action that led here, h cells

    h' = ConvLSTM(h, z, a')     prior  z' ~ codes(h', a')     posterior  z' = codes nearest to encoder(o')    r'(h', a')

The posterior needs no memory, and an episode begins with an empty one. Features are z alone: the paper's policy sees
nothing else. Episodes do not end by the model (the paper ends all of them after 50 steps).
"""

import jax
import jax.numpy as jnp
from flax import struct

from wmjax.models.vq_convlstm.config import grid_of
from wmjax.nets.grid_dynamics import GridDynamics, GridReward
from wmjax.nets.vqvae import GridDecoder, GridEncoder
from wmjax.ops import vector_quantisation as vq
from wmjax.types import Array, WorldModel

REWARDS = (-1.0, 0.0, 1.0)  # what the reward head chooses from


@struct.dataclass
class GridState:
    """One row for each sequence; X, Y: the grid's sides."""

    latent: Array  # float32 [B, X, Y, D], codebook vectors
    cells: tuple[tuple[Array, Array], ...]  # (h, c) of each ConvLSTM, float32 [B, X, Y, C]
    action: Array  # float32 [B, A], the one that led here
    prior: Array  # float32 [B, X, Y, codes], logits of the codes as foretold; of no meaning where an episode begins


def make_modules(config, obs_shape):
    """The flax modules of one time step, by the name of their parameters."""
    return dict(
        encoder=GridEncoder(config.encoder_widths, config.code_size),
        decoder=GridDecoder(config.decoder_widths, obs_shape[-1]),
        dynamics=GridDynamics(config.cells, config.kernel, config.codes),
        reward=GridReward(config.reward_channels, config.reward_hidden),
    )


def init_params(key, config, env_spec):
    """Parameters of every module by name, the `codebook`, and `running`, the statistics of the encoder's batch norm."""
    modules = make_modules(config, env_spec.obs_shape)
    keys = dict(zip((*modules, "codebook"), jax.random.split(key, len(modules) + 1), strict=True))
    start = empty_state(config, env_spec, 1)
    params = {
        "encoder": modules["encoder"].init(keys["encoder"], jnp.zeros((1, *env_spec.obs_shape))),
        "decoder": modules["decoder"].init(keys["decoder"], start.latent),
        "dynamics": modules["dynamics"].init(keys["dynamics"], start.cells, start.latent, start.action),
        "reward": modules["reward"].init(keys["reward"], start.cells[-1][0], start.action),
        "codebook": vq.init(keys["codebook"], config.codes, config.code_size),
    }
    image = jax.ShapeDtypeStruct((1, *env_spec.obs_shape), jnp.float32)
    _, statistics = jax.eval_shape(modules["encoder"].apply, params["encoder"], image)
    params["running"] = tuple((jnp.zeros(mean.shape), jnp.ones(variance.shape)) for mean, variance in statistics)
    return params


def empty_state(config, env_spec, batch):
    """Zeros, each array with memory of its own: one may not be donated twice."""
    grid = (batch, *grid_of(config, env_spec.obs_shape))
    cells = tuple((jnp.zeros((*grid, width)), jnp.zeros((*grid, width))) for width in config.cells)
    action, prior = jnp.zeros((batch, env_spec.action.size)), jnp.zeros((*grid, config.codes))
    return GridState(jnp.zeros((*grid, config.code_size)), cells, action, prior)


def pixels(obs):
    """uint8 -> float32 in [0, 1]."""
    return obs.astype(jnp.float32) / 255.0


def codes_of(params, embed):
    """Indices of the codes that an encoder's output becomes: [..., D] -> int32 [...]."""
    return vq.nearest(params["codebook"].vectors, embed)


def make_model(config, env_spec):
    """The WorldModel of `config`. Its aux is the prior of each step: logits [B, X, Y, codes]; decode gives the logits
    of a continuous Bernoulli for every pixel."""
    modules = make_modules(config, env_spec.obs_shape)

    def transition(params, state, action):
        return modules["dynamics"].apply(params["dynamics"], state.cells, state.latent, action)

    def initial(params, batch):
        return empty_state(config, env_spec, batch)

    def encode(params, obs):
        """obs uint8 [B, H, W, C] -> the encoder's output [B, X, Y, D], not yet quantised."""
        return modules["encoder"].apply(params["encoder"], pixels(obs), params["running"])[0]

    def observe(params, key, state, prev_action, embed, is_first):
        def unless_first(x):
            return jnp.where(is_first.reshape(-1, *(1,) * (x.ndim - 1)), 0.0, x)

        cells, prior = transition(params, state, prev_action)
        vectors = params["codebook"].vectors
        latent = vq.straight_through(embed, vectors[codes_of(params, embed)])
        cells, action, prior = jax.tree.map(unless_first, (cells, prev_action, prior))
        return GridState(latent, cells, action, prior), prior

    def imagine(params, key, state, action):
        cells, prior = transition(params, state, action)
        codes = jax.random.categorical(key, prior)
        return GridState(params["codebook"].vectors[codes], cells, action, prior)

    def features(params, state):
        return state.latent.reshape(state.latent.shape[0], -1)

    def reward(params, state):
        """The mean of the categorical over -1, 0 and 1; the paper draws one of them."""
        logits = modules["reward"].apply(params["reward"], state.cells[-1][0], state.action)
        return jax.nn.softmax(logits) @ jnp.array(REWARDS)

    def discount(params, state):
        return jnp.ones(state.action.shape[0])

    def decode(params, state):
        return modules["decoder"].apply(params["decoder"], state.latent)

    return WorldModel(initial, encode, observe, imagine, features, reward, discount, decode)
