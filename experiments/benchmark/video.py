"""The trade-offs study's models of images (SV2P): imagined images a second, and an update."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from experiments.benchmark.data import SPEC, random_steps
from wmjax import imagine
from wmjax.models import video
from wmjax.report.benchmark import Work, compiled
from wmjax.types import Array, Params, State

HORIZON = 12
ROLLOUTS = dict(quick=[16], paper=[16, 128])  # batches; the paper's planner has 128 candidates
UPDATES = dict(quick=[4], paper=[4, 64])  # the paper's batch is 64


def works(preset: str) -> Iterator[Work]:
    """OT_OR at the paper's size: images alone, then updates on chunks of its context and horizon."""
    config = video.VideoConfig(horizon=HORIZON)
    model, learner = video.make(config, SPEC)
    actions = np.random.default_rng(0).uniform(-1, 1, (HORIZON, max(ROLLOUTS[preset]), SPEC.action.size))

    def rollout(params: Params, key: Array, state: State, actions: Array) -> Array:
        return imagine.open_loop(model, params, key, state, actions).image

    def imagined(batch: int) -> tuple[Any, ...]:
        params = jax.jit(learner.init)(jax.random.key(0)).params
        return params, jax.random.key(1), model.initial(params, batch), np.float32(actions[:, :batch])

    def learned(batch: int, time: int) -> tuple[Any, ...]:
        state = jax.jit(learner.init)(jax.random.key(0))
        return state, jax.random.key(1), jax.device_put(random_steps(batch, time))

    for batch in ROLLOUTS[preset]:
        arguments, amounts = functools.partial(imagined, batch), {"frames": batch * HORIZON}
        yield compiled(f"SV2P, {batch} x {HORIZON}", rollout, arguments, amounts, batch=batch)
    time = config.context + HORIZON
    for batch in UPDATES[preset]:
        arguments, amounts = functools.partial(learned, batch, time), {"frames": batch * time, "updates": 1}
        yield compiled(f"SV2P update, {batch} x {time}", learner.update, arguments, amounts, batch=batch)
