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

from wmjax.envs.check import check_int, check_name, check_options
from wmjax.envs.jax_env import JaxVecEnv
from wmjax.types import ActionSpec, Array, EnvSpec, JaxEnv, Step

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


def make_env(task: str, options: dict[str, Any]) -> JaxEnv:
    """Makes a JaxEnv. Raises UsageError: unknown task or option, or a value out of range."""
    check_name("ball task", task, NOISE)
    options = check_options("ball", options, BallOptions)
    check_int("size", options.size, low=16, high=512)
    check_int("episode_steps", options.episode_steps, low=1, high=1_000_000)
    return _made(task, options)


def make(task: str, seeds: list[int], options: dict[str, Any]) -> JaxVecEnv:
    """Makes a JaxVecEnv of `make_env`; raises what that raises."""
    return JaxVecEnv(make_env(task, options), seeds, ("ball", task, options))


@functools.lru_cache(maxsize=16)  # what is compiled for one serves all that are made alike
def _made(task: str, options: BallOptions) -> JaxEnv:
    """The environment; its state is a Ball [E] and the steps int32 [E] of its episode."""

    def arrive(ball: Ball, steps: Array) -> tuple[tuple[Ball, Array], Step]:
        obs = jax.vmap(lambda place: draw(place, options.size))(ball.position)
        zeros, is_last = jnp.zeros(steps.shape), steps == options.episode_steps
        return (ball, steps), Step(zeros.astype(jnp.int32), obs, zeros, zeros + 1, steps == 0, is_last)

    def reset(key: Array, rows: int) -> tuple[tuple[Ball, Array], Step]:
        return arrive(jax.vmap(begin)(jax.random.split(key, rows)), jnp.zeros(rows, jnp.int32))

    def step(key: Array, state: tuple[Ball, Array], action: Array) -> tuple[tuple[Ball, Array], Step]:
        ball, steps = state
        begin_key, push_key = jax.random.split(key)
        moved = jax.vmap(move)(ball, NOISE[task] * jax.random.normal(push_key, ball.position.shape))
        fresh, is_first = jax.vmap(begin)(jax.random.split(begin_key, len(steps))), steps == options.episode_steps
        ball = jax.tree.map(lambda x, y: jnp.where(is_first[:, None], x, y), fresh, moved)
        return arrive(ball, jnp.where(is_first, 0, steps + 1))

    obs = jax.ShapeDtypeStruct((options.size, options.size, 1), np.uint8)
    return JaxEnv(EnvSpec(obs, ActionSpec(1, True, 0, 0), 1, options.episode_steps), reset, step)
