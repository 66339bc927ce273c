"""Play in dmc environments, and dm_control's physical states from what envpool shows of them."""

import numpy as np

from wmjax.envs import gl
from wmjax.envs.seeds import row_seeds

STATE = {"observe": "image+state"}


def random_actions(env, length: int, seed: int = 0) -> np.ndarray:
    """Returns float32 [length, E, A] that reach a little over the bounds."""
    shape = (length, len(env._episodes), env.spec.action.size)
    return np.random.default_rng(seed).uniform(-1.2, 1.2, shape).astype(np.float32)


def played(env, length: int = 8):
    """(actions [length, E, A], the Steps of an episode's beginning under them); all are kept: none shares memory."""
    actions = random_actions(env, length)
    return actions, [env.reset(), *(env.step(action) for action in actions)]


def first_observation(env_id: str, seed: int, num_envs: int):
    """Returns the symbolic observation in which envpool begins: it gives away the physical state."""
    envpool = gl.import_envpool()
    return envpool.make_dm(env_id, num_envs=num_envs, seed=row_seeds(seed, num_envs)).reset().observation


def cartpole_state(obs, row):
    x, cos, sin = obs.position[row]
    return [x, np.arctan2(sin, cos)], obs.velocity[row]


def plain_state(obs, row):
    return obs.position[row], obs.velocity[row]


def finger_state(obs, row):
    x, z = obs.position[row, 2:]  # of the spinner's tip from its axis
    return [*obs.position[row, :2], np.arctan2(-x, z)], obs.velocity[row]


def cheetah_state(obs, row):
    return [0, *obs.position[row]], obs.velocity[row]  # the reward knows no place along the track
