"""One update of several agents in one program, on the paper's chunks: what seeds beside the first one cost."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from experiments.benchmark.data import planet, random_steps
from wmjax.models import rssm
from wmjax.ops.batching import vmap_or_map
from wmjax.report.benchmark import Work, compiled

MEMBERS = (1, 4, 8)
CHUNKS = dict(accelerator=(50, 50), dry=(2, 3))


def works(preset: str) -> Iterator[Work]:
    """PlaNet's agents with batches of their own, as a run of several seeds updates them."""
    (batch, time), (config, spec) = CHUNKS[preset], planet(preset)
    _, learner = rssm.make(config, spec)

    def update(states: Any, keys: Any, batches: Any) -> Any:
        return vmap_or_map(learner.update)(states, keys, batches)

    def args(members: int) -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0), members)
        steps = jax.tree.map(lambda x: np.stack([x] * members), random_steps(batch, time, spec=spec))
        return jax.jit(jax.vmap(learner.init))(keys), keys, jax.device_put(steps)

    for members in MEMBERS:
        amounts, name = {"updates": members}, f"{members} member{'s' if members > 1 else ''}, {batch} x {time}"
        yield compiled(name, update, functools.partial(args, members), amounts, members=members)
