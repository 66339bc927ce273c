"""An environment in pure JAX as a world model of itself: what a learned model would be at its best.

It imagines what the environment would do under the same key, inside jit. Its state is the environment's own, which the
environment shows beside its image: {"image": ..., "state": ...}, MiniPacman by observe="image+state". It has no
parameters and nothing to learn. An imagined episode that is over stays where it is, without rewards.
"""

import jax
import jax.numpy as jnp
from flax import struct

from wmjax.ops import bernoulli
from wmjax.ops.axes import where_rows
from wmjax.types import Array, State, UsageError, WorldModel

CONTEXT = 1  # images from which a state is made: see `begin`


@struct.dataclass
class CompiledState:
    """One row for each sequence."""

    env: State  # of the environment, [B, ...]
    image: Array  # uint8 [B, X, Y, C]
    reward: Array  # float32 [B], of the step that led here; 0 where it was observed, and once the episode is over
    discount: Array  # float32 [B], as of Step; 1 where it was observed, 0 once the episode is over
    is_over: Array  # bool [B], whether an imagined step ended the episode; False where it was observed


def make_model(env):
    """The WorldModel of a JaxEnv; its `params` are ignored.

    Actions are float32 [B, A]; of discrete ones the largest number of a row is played. Observations of rows that are
    `is_last` are as the environment takes them: what is imagined from them is the next episode's begin.

    Raises: UsageError where the environment does not show its state.
    """
    spec = env.spec
    if not isinstance(spec.obs, dict) or "state" not in spec.obs:
        raise UsageError("the environment must show its state: obs['state'], of MiniPacman observe='image+state'.")

    def initial(params, batch):
        return begin(params, jax.tree.map(lambda x: jnp.zeros((batch, CONTEXT, *x.shape), x.dtype), spec.obs))

    def encode(params, obs):
        return dict(image=obs["image"], state=obs["state"])

    def observe(params, key, state, prev_action, embed, is_first):
        return begin(params, jax.tree.map(lambda x: x[:, None], embed)), None

    def imagine(params, key, state, action):
        chosen = action.argmax(axis=-1).astype(jnp.int32) if spec.action.discrete else action
        env_state, step = env.step(key, state.env, chosen)
        after = CompiledState(env_state, step.obs["image"], step.reward, step.discount, step.is_last)
        nothing = jnp.zeros(state.reward.shape)
        stays = state.replace(reward=nothing, discount=nothing)
        return where_rows(state.is_over, stays, after)

    def features(params, state):
        return state.image / 255.0

    def reward(params, state):
        return state.reward

    def discount(params, state):
        return state.discount

    def decode(params, state):
        return bernoulli.logits(features(params, state))

    return WorldModel(initial, encode, observe, imagine, features, reward, discount, decode, spec.obs_shape)


def begin(params, embeds):
    """The state at the newest of embeddings [B, CONTEXT, ...]."""
    newest = jax.tree.map(lambda x: x[:, -1], embeds)
    rows = newest["image"].shape[0]
    zeros = jnp.zeros(rows)
    return CompiledState(newest["state"], newest["image"], zeros, zeros + 1, zeros > 0)
