"""Models with known answers and records that say where they come from, for tests of the core."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from wmjax.types import ActionSpec, EnvSpec, Step, WorldModel

SPEC = EnvSpec(jax.ShapeDtypeStruct((16, 16, 3), np.uint8), ActionSpec(2, False, -1.0, 1.0))
DISCRETE_SPEC = EnvSpec(jax.ShapeDtypeStruct((16, 16, 3), np.uint8), ActionSpec(3, True, 0, 2))


def random_steps(spec, rows, time, seed=0):
    """Step [B, T] of noise in numpy; every row begins an episode at t = 0, and no other begins."""
    rng = np.random.default_rng(seed)
    if spec.action.discrete:
        action = rng.integers(0, spec.action.size, (rows, time), dtype=np.int32)
    else:
        action = rng.uniform(spec.action.low, spec.action.high, (rows, time, spec.action.size)).astype(np.float32)
    action[:, 0] = 0
    is_first = np.zeros((rows, time), bool)
    is_first[:, 0] = True
    return Step(
        prev_action=action,
        obs=rng.integers(0, 256, (rows, time, *spec.obs_shape), dtype=np.uint8),
        reward=rng.normal(size=(rows, time)).astype(np.float32),
        discount=np.ones((rows, time), np.float32),
        is_first=is_first,
        is_last=np.zeros((rows, time), bool),
    )


@struct.dataclass
class Point:
    position: jax.Array  # float32 [B, A]
    target: jax.Array  # float32 [B, A]


def make_point_model(size, edge=np.inf):
    """A point that moves by its actions: reward = -|position - target|^2, the episode ends where position[0] > edge.

    From 0 with a target in reach the best sequence is target, 0, 0, ... The embedding is the mean pixel over 255;
    observing adds the action and the embedding. `params` is a number that scales the reward.
    """

    def initial(params, batch):
        return Point(jnp.zeros((batch, size)), jnp.zeros((batch, size)))

    def encode(params, obs):
        return obs.astype(jnp.float32).mean(axis=(1, 2, 3))[:, None] / 255

    def observe(params, key, state, prev_action, embed, is_first):
        position = jnp.where(is_first[:, None], 0.0, state.position + prev_action) + embed
        return state.replace(position=position), position.sum(-1)

    def imagine(params, key, state, action):
        return state.replace(position=state.position + action)

    def features(params, state):
        return state.position

    def reward(params, state):
        return -params * jnp.square(state.position - state.target).sum(-1)

    def discount(params, state):
        return jnp.where(state.position[:, 0] > edge, 0.0, 1.0)

    return WorldModel(initial, encode, observe, imagine, features, reward, discount, None, (size,))


def at_origin(targets):
    """Point of these targets [B, A]."""
    targets = np.float32(targets)
    return Point(np.zeros_like(targets), targets)


def values_by_loop(candidates, target):
    """Candidates [H, N, A] -> the sum of -|position - target|^2, [N]."""
    positions = np.cumsum(candidates, axis=0)
    return -np.square(positions - target).sum((0, 2))


@struct.dataclass
class Trail:
    row: jax.Array  # float32 [B], where and when the last observation was made, read from the embedding
    start: jax.Array
    steps: jax.Array  # steps imagined since then
    path: jax.Array  # their actions as decimal digits, the latest last


def make_trail_model():
    """A state that tells its own history exactly: embeddings are (row, time), actions are single digits [B, 1]."""

    def initial(params, batch):
        return Trail(*(jnp.full(batch, -1.0) for _ in range(4)))

    def observe(params, key, state, prev_action, embed, is_first):
        zeros = jnp.zeros_like(state.row)
        return Trail(embed[:, 0], embed[:, 1], zeros, zeros), None

    def imagine(params, key, state, action):
        return state.replace(steps=state.steps + 1, path=10 * state.path + action[:, 0])

    return WorldModel(initial, None, observe, imagine, None, None, None, None, ())


def randomised(shapes, scale=1.0, seed=0):
    """Parameters of these shapes drawn from N(0, scale^2), biases too, so that none is zero by chance."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (scale * rng.normal(size=x.shape)).astype(np.float32), shapes)


def normal(*shape, seed=0):
    """Noise in numpy."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
