"""An environment's own simulator behind the doors of a world model, called on the host.

Its state is what the environment shows of itself: bytes, which no computation here reads. `advance` is all it is made
of, so it knows no environment; `wmjax.envs.physics` has one. It has no parameters and nothing to learn.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from wmjax.types import Array, WorldModel


@struct.dataclass
class SimulatorState:
    """One row for each sequence."""

    simulator: Array  # uint8 [B, S, 8]
    reward: Array  # float32 [B], of the step that led here; 0 where it was observed


def make_model(env_spec, advance):
    """The WorldModel of a simulator; its `params` and keys are ignored.

    Args:
      env_spec: of an environment whose observation is its state, or a dict with it as "state".
      advance: numpy (states uint8 [N, S, 8], actions float32 [H, N, A]) -> (states [H, N, S, 8], rewards [H, N]), pure.
    """
    shown = env_spec.obs["state"] if isinstance(env_spec.obs, dict) else env_spec.obs

    def initial(params, batch):
        return SimulatorState(jnp.zeros((batch, *shown.shape), shown.dtype), jnp.zeros(batch))

    def encode(params, obs):
        return obs["state"] if isinstance(obs, dict) else obs

    def observe(params, key, state, prev_action, embed, is_first):
        return SimulatorState(embed, jnp.zeros(is_first.shape)), None

    def imagine(params, key, state, action):
        return SimulatorState(*call(one_step, state.simulator, action, (state.simulator, state.reward)))

    def one_step(states, action):
        states, reward = advance(states, action[None])
        return states[0], np.float32(reward[0])

    def rewards(params, key, state, actions):
        shape = jax.ShapeDtypeStruct(actions.shape[:2], jnp.float32)
        return call(lambda *args: np.float32(advance(*args)[1]), state.simulator, actions, shape)

    def call(function, states, actions, result):
        """The numpy function's result, of the shapes of `result`. Rows are not batched further: see `vmap_or_map`."""
        host = lambda *args: function(*map(np.asarray, args))
        return jax.pure_callback(host, result, states, actions, vmap_method="sequential")

    def features(params, state):
        return state.reward[:, None]  # float64 bytes are no features

    def reward(params, state):
        return state.reward

    def discount(params, state):
        return jnp.ones(state.reward.shape)

    return WorldModel(initial, encode, observe, imagine, features, reward, discount, None, (1,), rewards)
