"""The rollout engine: imagined states a second under a linear policy, of PlaNet's RSSM and of environment models."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.data import SPEC
from wmjax import imagine
from wmjax.models import rssm, state_space
from wmjax.ops.axes import fold
from wmjax.report.benchmark import Work, compiled
from wmjax.types import Array, Learner, Params, State

SIZES = dict(  # (batch, horizon, what is made of the states)
    quick=[(1024, 15, "latent"), (1024, 15, "heads"), (64, 15, "pixels")],
    paper=[
        *((batch, 15, "latent") for batch in (1, 16, 256, 1024, 4096, 16384, 65536)),
        *((batch, 15, "heads") for batch in (1, 16, 256, 1024, 4096, 16384, 65536)),
        *((1024, horizon, "heads") for horizon in (5, 50)),
        *((batch, 15, "pixels") for batch in (1, 16, 256)),
    ],
)
MAPS = dict(quick=[(16, 15, "heads")], paper=[(batch, 15, "heads") for batch in (1, 16, 256)])  # of the others


def works(preset: str) -> Iterator[Work]:
    """Latent states alone, with reward and continuation, and with images."""
    yield from rollouts("", rssm.make(rssm.RSSMConfig(), SPEC), SIZES[preset])
    for kind in state_space.KINDS:
        yield from rollouts(f"{kind}, ", state_space.make(state_space.StateSpaceConfig(kind), SPEC), MAPS[preset])


def rollouts(
    name: str, model_and_learner: tuple[Any, Learner], sizes: Sequence[tuple[int, int, str]]
) -> Iterator[Work]:
    """The Works of one model. sizes: as SIZES."""
    model, learner = model_and_learner
    params = learner.init(jax.random.key(0)).params
    shape = math.prod(model.feature_shape), SPEC.action.size
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def policy(key: Array, features: Array) -> Array:
        return jnp.tanh(features.reshape(features.shape[0], -1) @ weights)

    def rollout(horizon: int, made: str, params: Params, key: Array, state: State) -> Any:
        if made == "heads":
            return imagine.rollout(model, params, key, state, policy, horizon)[1].reward
        action = policy(key, model.features(params, state))
        actions = jnp.broadcast_to(action, (horizon, *action.shape))
        states = imagine.open_loop(model, params, key, state, actions)
        return states if made == "latent" else model.decode(params, fold(states))

    for batch, horizon, made in sizes:
        args = (params, jax.random.key(1), model.initial(params, batch))
        function = functools.partial(rollout, horizon, made)
        tags = dict(batch=batch, horizon=horizon, made=f"{name}{made}")
        yield compiled(f"{name}{made}, {batch} x {horizon}", function, args, {"states": batch * horizon}, **tags)
