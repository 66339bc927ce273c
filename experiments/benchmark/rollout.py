"""The rollout engine: imagined states a second under a linear policy, of PlaNet's RSSM and of environment models."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.data import SPEC, TINY, planet
from wmjax import imagine
from wmjax.models import rssm, state_space
from wmjax.ops.axes import fold
from wmjax.report.benchmark import Work, compiled
from wmjax.types import ActionSpec, Array, EnvSpec, Learner, Params, State

BATCHES = (1, 16, 256, 1024, 4096, 16384, 65536)
SIZES = dict(  # (batch, horizon, what is made of the states)
    quick=[(1024, 15, "latent"), (1024, 15, "heads"), (64, 15, "pixels")],
    paper=[
        *((batch, 15, "latent") for batch in BATCHES),
        *((batch, 15, "heads") for batch in BATCHES),
        *((1024, horizon, "heads") for horizon in (5, 50)),
        *((batch, 15, "pixels") for batch in (1, 16, 256)),
    ],
    accelerator=[(batch, 15, "latent") for batch in BATCHES],
    dry=[(batch, 15, "latent") for batch in BATCHES],
)
MAPS = dict(  # of the others
    quick=[(16, 15, "heads")],
    paper=[(batch, 15, "heads") for batch in (1, 16, 256)],
    accelerator=[(batch, 15, "heads") for batch in (16, 256)],
    dry=[(batch, 2, "heads") for batch in (1, 2)],
)
KINDS = dict(accelerator=("sssm", "ar"), dry=("sssm", "ar"))
GAME = EnvSpec(jax.ShapeDtypeStruct((200, 160, 3), np.uint8), ActionSpec(18, True, 0, 17))  # as Buesing et al. see it
TINY_MAPS: dict[str, Any] = dict(channels=8, encoder_width=8, decoder_width=8, reward_digits=2)
SEEN = dict(accelerator=(GAME, {}), dry=(TINY, TINY_MAPS))  # by environment models


def works(preset: str) -> Iterator[Work]:
    """Latent states alone, with reward and continuation, and with images."""
    config, spec = planet(preset)
    yield from rollouts("", rssm.make(config, spec), SIZES[preset], spec.action.size)
    spec, settings = SEEN.get(preset, (SPEC, {}))
    for kind in KINDS.get(preset, state_space.KINDS):
        made = state_space.make(state_space.StateSpaceConfig(kind, **settings), spec)
        yield from rollouts(f"{kind}, ", made, MAPS[preset], spec.action.size)


def rollouts(
    name: str, model_and_learner: tuple[Any, Learner], sizes: Sequence[tuple[int, int, str]], actions: int
) -> Iterator[Work]:
    """The Works of one model. sizes: as SIZES; actions: A."""
    model, learner = model_and_learner
    shape = math.prod(model.feature_shape), actions
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

    def args(batch: int) -> tuple[Any, ...]:
        params = jax.jit(learner.init)(jax.random.key(0)).params
        return params, jax.random.key(1), model.initial(params, batch)

    for batch, horizon, made in sizes:
        function, arguments = functools.partial(rollout, horizon, made), functools.partial(args, batch)
        tags = dict(batch=batch, horizon=horizon, made=f"{name}{made}")
        yield compiled(f"{name}{made}, {batch} x {horizon}", function, arguments, {"states": batch * horizon}, **tags)
