"""Models of rewards alone: R and R_conv of the trade-offs study (Babaeizadeh et al. 2020, appendix B.3 and Fig. 10).

An image o becomes a code e once, where the prediction starts; then there are actions alone, a', a'', ...

    recurrent   h' = LSTM(h, [e, f(a')])    r' = MLP(h')        h = 0 where an image is seen
    conv        r', r'', ... = MLP([e, f(a', a'', ...)])

Nothing is kept of what was before the last image, and nothing is said of the image itself: its reward is known.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from wmjax.nets.images import ImageEncoder
from wmjax.nets.lstm import LSTM
from wmjax.nets.mlp import MLP
from wmjax.nets.reward import RewardHead, leaky_relu
from wmjax.ops.axes import time_first
from wmjax.ops.frames import unit_pixels
from wmjax.types import Array, WorldModel, image_of


@struct.dataclass
class RewardState:
    """One row for each sequence."""

    code: Array  # float32 [B, D], of the last image
    h: Array  # float32 [B, U], of the LSTM over the actions since; U = 0 for conv
    c: Array  # float32 [B, U]


def state_sizes(config):
    """Numbers of each array of a RewardState."""
    units = config.lstm_units if config.kind == "recurrent" else 0
    return RewardState(config.code, units, units)


def make_modules(config):
    """The flax modules of one time step, by the name of their parameters."""
    is_conv = config.kind == "conv"
    convolutions = ImageEncoder(config.encoder_widths, kernel=3, activation=leaky_relu)
    modules = dict(
        encoder=nn.Sequential([convolutions, nn.Dense(config.code)]),
        action=nn.Sequential([MLP(config.action_widths[:-1], config.action_widths[-1], leaky_relu), leaky_relu]),
        reward=RewardHead(config.reward_widths, config.horizon if is_conv else 1, config.dropout),
    )
    return modules if is_conv else modules | dict(lstm=LSTM(config.lstm_units))


def init_params(key, config, env_spec):
    """Parameters of every module: a dict by module name."""
    modules = make_modules(config)
    keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
    actions = env_spec.action.size * (config.horizon if config.kind == "conv" else 1)
    state = jax.tree.map(lambda size: jnp.zeros((1, size)), state_sizes(config))
    step = jnp.zeros((1, config.code + config.action_widths[-1]))
    inputs = dict(
        encoder=(jnp.zeros((1, *env_spec.obs_shape)),),
        action=(jnp.zeros((1, actions)),),
        reward=(step if config.kind == "conv" else state.h,),
        lstm=(state.h, state.c, step),
    )
    return {name: module.init(keys[name], *inputs[name]) for name, module in modules.items()}


def make_model(config, env_spec, dropout_key=None):
    """The WorldModel of `config`; dropout_key: in training alone, of the units that its reward head drops."""
    modules = make_modules(config)

    def apply(params, name, *args):
        return modules[name].apply(params[name], *args)

    def initial(params, batch):
        return jax.tree.map(lambda size: jnp.zeros((batch, size), jnp.float32), state_sizes(config))

    def encode(params, obs):
        """obs uint8 [B, X, Y, C] -> code [B, D]."""
        return apply(params, "encoder", unit_pixels(image_of(obs)))

    def observe(params, key, state, prev_action, embed, is_first):
        return RewardState(embed, jnp.zeros_like(state.h), jnp.zeros_like(state.c)), None

    def features(params, state):
        return jnp.concatenate([state.code, state.h, state.c], -1)

    def discount(params, state):
        return jnp.ones(state.code.shape[0])  # the study's tasks end by time alone

    make_transition = dict(recurrent=make_recurrent, conv=make_conv)[config.kind]
    imagine, reward, rewards = make_transition(apply, dropout_key)
    size = sum(jax.tree.leaves(state_sizes(config)))
    model = WorldModel(initial, encode, observe, imagine, features, reward, discount, None, (size,), rewards)
    return model._replace(horizon=config.horizon if config.kind == "conv" else None)


def make_recurrent(apply, dropout_key):
    """(imagine, reward, rewards) of R; arguments as in `make_model`."""

    def imagine(params, key, state, action):
        step = jnp.concatenate([state.code, apply(params, "action", action)], -1)
        h, c = apply(params, "lstm", state.h, state.c, step)
        return RewardState(state.code, h, c)

    def reward(params, state):
        return apply(params, "reward", leaky_relu(state.h), dropout_key)[:, 0]

    return imagine, reward, None


def make_conv(apply, dropout_key):
    """(imagine, reward, rewards) of R_conv: imagined states stay as they are, and a single one has no reward, nan."""

    def imagine(params, key, state, action):
        return state

    def reward(params, state):
        return jnp.full(state.code.shape[0], jnp.nan)

    def rewards(params, key, state, actions):
        sequence = time_first(actions).reshape(actions.shape[1], -1)  # [B, H * A]
        inputs = jnp.concatenate([state.code, apply(params, "action", sequence)], -1)
        return time_first(apply(params, "reward", inputs, dropout_key))

    return imagine, reward, rewards
