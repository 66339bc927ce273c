"""LT_OR of the trade-offs study (Babaeizadeh et al. 2020): rewards of a whole horizon, read off predicted images.

    planning    state > a1 > s1 > a2 > s2 ...     every s decoded     the network sees all images: r1 r2 ...
    training    the posterior states of H consecutive steps, decoded, and the rewards of the same steps

The authors' network has one input more. In training that is the last reward of the chunk, which is one of the rewards
to be predicted; in planning it is the last reward observed. Here it is left out, unless `reward_leak` is set.
"""

import chex
import jax.numpy as jnp

from wmjax.imagine import open_loop
from wmjax.nets.casting import make_apply
from wmjax.nets.reward import ImageRewards
from wmjax.ops import gaussian
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.types import UsageError


def make_module(config):
    """The network, see `wmjax.nets.reward`."""
    return ImageRewards(config.reward_horizon, config.reward_widths)


def example_inputs(config, image):
    """Inputs of the network, one row of zeros; image [1, X, Y, C]."""
    images = jnp.broadcast_to(image[:, None], (1, config.reward_horizon, *image.shape[1:]))
    return (images, jnp.zeros((1, 1))) if config.reward_leak else (images,)


def with_image_rewards(model, config, apply):
    """The WorldModel with `rewards` and `horizon`; the reward of a single state, which is not learned, is nan.

    apply: of `make_apply`, with the modules of the model.
    """

    def rewards(params, key, state, actions):
        chex.assert_axis_dimension(actions, 0, config.reward_horizon)
        states = open_loop(model, params, key, state, actions)
        images = time_first(unfold_like(model.decode(params, fold(states)), states))  # [B, H, X, Y, C]
        known = () if state.reward is None else (state.reward,)
        return time_first(apply(params, "reward", images, *known))

    def reward(params, state):
        return jnp.full(state.sample.shape[0], jnp.nan)

    def with_reward(state, reward):
        return state.replace(reward=reward[..., None])

    leak = with_reward if config.reward_leak else None
    return model._replace(reward=reward, rewards=rewards, horizon=config.reward_horizon, with_reward=leak)


def reward_loss(config, params, images, reward):
    """Half the squared error, the mean over windows of the horizon.

    Args: images: decoded, [B, T, X, Y, C]; reward [B, T].
    """
    images, reward = windows(images, config.reward_horizon), windows(reward, config.reward_horizon)
    known = (reward[:, -1:],) if config.reward_leak else ()
    predicted = make_apply(config, dict(reward=make_module(config)))(params, "reward", images, *known)
    return -gaussian.unit_log_prob(reward, predicted, 0).mean()


def windows(x, size):
    """[B, T, ...] -> [B * (T - size + 1), size, ...]: every run of `size` consecutive steps."""
    if x.shape[1] < size:
        raise UsageError(f"model reward_horizon {size}: chunks have only {x.shape[1]} rows")
    starts = jnp.arange(x.shape[1] - size + 1)
    return fold(x[:, starts[:, None] + jnp.arange(size)[None]])
