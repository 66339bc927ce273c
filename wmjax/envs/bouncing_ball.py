"""A ball that drifts in a box and is pushed about at random (Buesing et al. 2018, appendix A.6), in pure JAX.

"ball:diffusing"   each step adds the velocity and noise to the position; walls reflect both
"ball:drifting"    the same without noise: three images tell the whole future

The box is a square of side 1 and the ball's centre stays RADIUS away from its walls. One action, which does nothing;
no rewards; episodes end by time alone. The paper has 80 x 80 pixels, a drift and a small random diffusion: the radius,
the speed and the noise are ours.

Options of `make("ball:diffusing", num_envs, seed, ...)`: size of the image (80), episode_steps (64).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.envs.check import (
    check_action,
    check_begun,
    check_identity,
    check_int,
    check_name,
    check_options,
    identity_of,
)
from wmjax.types import ActionSpec, Array, EnvSpec, Step

RADIUS = 0.075
SPEED = 0.04  # a step
NOISE = dict(diffusing=0.02, drifting=0.0)  # standard deviation of each coordinate, a step


class Ball(NamedTuple):
    position: Array  # float32 [2], row and column of the centre
    velocity: Array  # float32 [2], a step


class BallOptions(NamedTuple):
    """See the module's text."""

    size: int = 80
    episode_steps: int = 64


def begin(key: Array) -> Ball:
    """A ball anywhere in the box that moves in any direction."""
    place_key, angle_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    position = jax.random.uniform(place_key, (2,), minval=RADIUS, maxval=1 - RADIUS)
    return Ball(position, SPEED * jnp.stack([jnp.sin(angle), jnp.cos(angle)]))


def move(ball: Ball, push: Array) -> Ball:
    """One step with a push float32 [2], short of the box's width."""
    place = ball.position + ball.velocity + push
    inside = jnp.where(place < RADIUS, 2 * RADIUS - place, place)
    inside = jnp.where(inside > 1 - RADIUS, 2 * (1 - RADIUS) - inside, inside)
    return Ball(inside, jnp.where(place == inside, ball.velocity, -ball.velocity))


def draw(position: Array, size: int) -> Array:
    """Image uint8 [size, size, 1] of a white ball on black, its edge one pixel wide."""
    middles = (jnp.arange(size) + 0.5) / size
    away = jnp.hypot(middles[:, None] - position[0], middles[None] - position[1])
    return jnp.rint(255 * jnp.clip((RADIUS - away) * size + 0.5, 0, 1)).astype(jnp.uint8)[..., None]


def sequences(key: Array, task: str, count: int, length: int, size: int) -> Step:
    """Step [count, length] of balls that each began at the first row; arrays on the device."""

    def one(key: Array) -> Array:
        begin_key, push_key = jax.random.split(key)
        pushes = NOISE[task] * jax.random.normal(push_key, (length - 1, 2))
        first = begin(begin_key)
        _, places = jax.lax.scan(lambda ball, push: (move(ball, push),) * 2, first, pushes)
        return jnp.concatenate([first.position[None], places.position])

    places = jax.vmap(one)(jax.random.split(key, count))
    obs = jax.lax.map(jax.vmap(lambda place: draw(place, size)), places)
    rows = jnp.broadcast_to(jnp.arange(length)[None], (count, length))
    return Step(
        prev_action=jnp.zeros_like(rows),
        obs=obs,
        reward=jnp.zeros(rows.shape),
        discount=jnp.ones(rows.shape),
        is_first=rows == 0,
        is_last=rows == length - 1,
    )


def make(task: str, seeds: list[int], options: dict[str, Any]) -> "BallVecEnv":
    """Makes a BallVecEnv. Raises UsageError: unknown task or option, or a value out of range."""
    check_name("ball task", task, NOISE)
    options = check_options("ball", options, BallOptions)
    check_int("size", options.size, low=16, high=512)
    check_int("episode_steps", options.episode_steps, low=1, high=1_000_000)
    return BallVecEnv(task, seeds, options)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _advance(ball: Ball, seeds: Array, counts: Array, is_first: Array, task: str, size: int) -> tuple[Ball, Array]:
    """The next (Ball, image) of every row; counts int32 [E, 2]: episodes begun and steps made in this one."""

    def one(ball: Ball, seed: Array, counts: Array, is_first: Array) -> tuple[Ball, Array]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), counts[0]), counts[1])
        moved = move(ball, NOISE[task] * jax.random.normal(key, (2,)))
        ball = jax.tree.map(lambda x, y: jnp.where(is_first, x, y), begin(key), moved)
        return ball, draw(ball.position, size)

    return jax.vmap(one)(ball, seeds, counts, is_first)


class BallVecEnv:
    """E balls; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec; options, BallOptions."""

    def __init__(self, task: str, seeds: list[int], options: BallOptions):
        self._task, self._num_envs, self.options = task, len(seeds), options
        self._identity = identity_of(task, seeds, tuple(options))
        self._seeds = np.array(seeds)
        self._counts = np.zeros((len(seeds), 2), np.int32)
        self._ball = Ball(*np.zeros((2, len(seeds), 2), np.float32))
        self._begun = False
        shape = (options.size, options.size, 1)
        self.spec = EnvSpec(jax.ShapeDtypeStruct(shape, np.uint8), ActionSpec(1, True, 0, 0), 1, options.episode_steps)

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        self._begun = True
        return self._go(np.ones(self._num_envs, bool))

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision, int32 [E] of zeros, in every row that goes on; begins an episode in the others."""
        check_begun(self._begun, "step")
        check_action(action, self._num_envs, self.spec.action)
        return self._go(self._counts[:, 1] == self.options.episode_steps)

    def close(self) -> None:
        """Does nothing."""

    def snapshot(self) -> dict[str, Any]:
        """Returns the whole state: identity (int), counts [E, 2], position and velocity [E, 2] each."""
        check_begun(self._begun, "snapshot")
        return {"identity": self._identity, "counts": self._counts.copy()} | {
            name: np.array(x) for name, x in self._ball._asdict().items()
        }

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot."""
        check_identity(snapshot, self._identity)
        self._begun, self._counts = True, np.array(snapshot["counts"])
        self._ball = Ball(*(np.array(snapshot[name]) for name in Ball._fields))
        images = jax.vmap(lambda place: draw(place, self.options.size))(self._ball.position)
        return self._arrive(images)

    def _go(self, is_first: np.ndarray) -> Step:
        self._counts = np.where(is_first[:, None], self._counts * [1, 0] + [1, 0], self._counts + [0, 1])
        self._counts = self._counts.astype(np.int32)
        self._ball, images = _advance(self._ball, self._seeds, self._counts, is_first, self._task, self.options.size)
        return self._arrive(images)

    def _arrive(self, images: Array) -> Step:
        rows = self._num_envs
        return Step(
            prev_action=np.zeros(rows, np.int32),
            obs=np.array(images),
            reward=np.zeros(rows, np.float32),
            discount=np.ones(rows, np.float32),
            is_first=self._counts[:, 1] == 0,
            is_last=self._counts[:, 1] == self.options.episode_steps,
        )
