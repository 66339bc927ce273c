"""A whole learning loop on the device: advantage actor-critic without a model on MiniPacman, no environment package.

Acting, the game and learning are one compiled program. Returns are of each row's first episode, cut at LIMIT decisions,
before and after the same fixed number of frames.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import agents
from wmjax.report.benchmark import Finding
from wmjax.run import unroll
from wmjax.types import Array, Params

CALLS = dict(accelerator=60, dry=2)  # of agents.UPDATES updates each
LIMIT = dict(accelerator=500, dry=5)
SURE = 2.0  # standard errors by which the return has to rise


def works(preset: str) -> Iterator[Finding]:
    """One run of the regular game."""
    yield Finding(f"minipacman:regular, {agents.maze_of(preset)}", functools.partial(learn, preset))


def learn(preset: str) -> dict[str, Any]:
    """Figures of the run; failed where the return did not rise, which a dry run is too short for."""
    one = agents.baseline(preset)
    run, (_, state, playing, _) = agents.loop(one, agents.UPDATES if preset != "dry" else 1)
    rows = len(playing.step.reward)
    compiled = jax.jit(run).lower(one.model, state, playing, jax.random.key(4)).compile()
    measure = jax.jit(functools.partial(returns, one, rows, LIMIT[preset]))
    before = np.asarray(measure(state.params, jax.random.key(5)))
    begun = time.perf_counter()
    for key in jax.random.split(jax.random.key(6), CALLS[preset]):
        (state, playing), losses = compiled(one.model, state, playing, key)
    jax.block_until_ready(losses)
    seconds = time.perf_counter() - begun
    after = np.asarray(measure(state.params, jax.random.key(5)))
    frames = CALLS[preset] * len(losses) * rows * one.decisions
    row = {"frames": frames, "seconds": seconds, "frames/s": frames / seconds} | risen(before, after)
    if preset == "dry":
        row.pop("failed", None)
    return row


def risen(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Mean returns of episodes, before [E] and after [E], and the standard error of their difference.

    failed where it is not above SURE of those, a NaN too.
    """
    error = float(np.sqrt(before.var() / before.size + after.var() / after.size))
    found = dict(return_before=float(before.mean()), return_after=float(after.mean()), standard_error=error)
    if after.mean() - before.mean() > SURE * error:
        return found
    return found | dict(failed=f"the return did not rise by {SURE:g} standard errors")


def returns(one: agents.Playing, rows: int, limit: int, params: Params, key: Array) -> Array:
    """float32 [E]: what each row's first episode has earned after `limit` decisions, or at its end before."""
    all_params = dict(model=one.model, agent=params)
    begin_key, key = jax.random.split(key)
    playing = unroll.begin(one.env, one.player, all_params, begin_key, rows)

    def decide(carry: Any, key: Array) -> tuple[Any, None]:
        playing, total, goes_on = carry
        playing, steps, _ = unroll.unroll(one.env, one.player, all_params, key, playing, 1)
        total += jnp.where(goes_on, steps.reward[1], 0.0)
        return (playing, total, goes_on & ~steps.is_last[1]), None

    carry = (playing, jnp.zeros(rows), jnp.ones(rows, bool))
    return jax.lax.scan(decide, carry, jax.random.split(key, limit))[0][1]
