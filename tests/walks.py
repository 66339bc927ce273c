"""A small world that models overfit."""

import jax
import numpy as np

from wmjax.types import ActionSpec, EnvSpec, Step


def walks(rows, time, side, reward):
    """(EnvSpec, Step [rows, time]): a bright square that goes round by the action, with a reward at the left.

    side: of the square; four places for it stand side by side on a field of 16 x (4 * side) pixels.
    """
    spec = EnvSpec(jax.ShapeDtypeStruct((16, 4 * side, 1), np.uint8), ActionSpec(2, True, 0, 1))
    rng = np.random.default_rng(0)
    action = rng.integers(0, 2, (rows, time)).astype(np.int32)
    place = (rng.integers(0, 4, (rows, 1)) + np.cumsum(2 * action - 1, axis=1)) % 4
    obs = np.zeros((rows, time, *spec.obs_shape), np.uint8)
    for b, t in np.ndindex(rows, time):
        obs[b, t, side : 2 * side, side * place[b, t] : side * (place[b, t] + 1)] = 255
    false = np.zeros((rows, time), bool)
    rewards = np.where(place == 0, reward, 0).astype(np.float32)
    return spec, Step(action, obs, rewards, np.ones((rows, time), np.float32), false, false)
