"""Environments in pure JAX, played by chance inside one program: MiniPacman with its images."""

import functools
from collections.abc import Iterator
from typing import Any

import jax

from wmjax import envs
from wmjax.report.benchmark import Work, compiled
from wmjax.types import Array, JaxEnv

STEPS = 500  # of one call
ROWS = dict(quick=[64], paper=[64, 1024])


def works(preset: str) -> Iterator[Work]:
    """Both mazes; regular, the mode in which food counts. Every mode costs the same."""
    for maze in ("15x19", "9x11"):
        env: Any = envs.make_jax("minipacman:regular", maze=maze)
        for rows in ROWS[preset]:
            name, call = f"minipacman {maze}, {rows} envs", functools.partial(play, env, rows)
            yield compiled(name, call, [jax.random.key(0)], {"steps": STEPS * rows}, maze=maze, envs=rows)


def play(env: JaxEnv, rows: int, key: Array) -> tuple[Array, Array]:
    """(the last images [E, X, Y, C], which depend on every step, and the sum of all rewards) of random play."""
    reset_key, key = jax.random.split(key)

    def step(carry: tuple, key: Array) -> tuple[tuple, Array]:
        state, _ = carry
        action_key, step_key = jax.random.split(key)
        action = jax.random.randint(action_key, (rows,), 0, env.spec.action.size)
        state, arrival = env.step(step_key, state, action)
        return (state, arrival.obs), arrival.reward.sum()

    state, first = env.reset(reset_key, rows)
    (_, images), rewards = jax.lax.scan(step, (state, first.obs), jax.random.split(key, STEPS))
    return images, rewards.sum()
