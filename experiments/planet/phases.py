"""The training phase of PlaNet: after every collected episode so many updates on chunks of the replay."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.planet.config import TrainConfig
from wmjax import replay
from wmjax.ops.batching import vmap_or_map
from wmjax.run import devices, processes, stop
from wmjax.run.members import member
from wmjax.train import check_finite, make_phase
from wmjax.types import Array, Learner, LearnerState

DISPATCHED = 10  # updates of one dispatch at most: seconds on two cores, a minute at the paper's sizes


def make_update(learner: Learner, train: TrainConfig, mesh: Mesh) -> Callable[..., tuple[LearnerState, dict]]:
    """(state [S], memory [S], keys [S]) -> (state, metrics [S]): one update of all members, batches over the mesh."""
    draw = replay.sample_within_episodes if train.within_episodes else replay.sample
    over_devices = devices.split(mesh, 1)

    def update(state: LearnerState, memory: replay.Replay, keys: Array) -> tuple[LearnerState, dict]:
        sample_keys, update_keys = jax.vmap(jax.random.split)(keys).T
        batch = jax.vmap(lambda memory, key: draw(memory, key, train.batch, train.chunk))(memory, sample_keys)
        batch = jax.lax.with_sharding_constraint(batch, over_devices)  # [S, B, T, ...]
        return vmap_or_map(learner.update)(state, update_keys, batch)

    return update


def make_fit(
    learner: Learner, train: TrainConfig, mesh: Mesh, updates: int, owners: Sequence[str]
) -> Callable[..., tuple[LearnerState, list[dict[str, Any]]]]:
    """A function (state [S], memory [S], keys [S] of the phase) -> (state, metrics of each member, means): a phase.

    It waits for the device. Nothing is donated: the parameters that act may be in use meanwhile, and a run that is
    stopped goes back to the state before. Args: updates: of the phase; owners: names of the members, for messages.
    Raises: NonFiniteError; stop.Stopped between two dispatches.
    """
    size = stop.dispatch_size(updates, DISPATCHED)
    phase = make_phase(make_update(learner, train, mesh), sharding=devices.replicated(mesh))

    def keys_of(keys: Array) -> Array:
        """Keys of the phase [S] -> of each dispatch and each of its updates [D, C, S]."""
        by_dispatch = jax.vmap(lambda key: jax.random.split(key, updates // size))(keys)  # [S, D]
        return jax.vmap(lambda keys: jax.vmap(lambda key: jax.random.split(key, size))(keys).T)(by_dispatch.T)

    keys_of = jax.jit(lambda keys, keys_of=keys_of: tuple(keys_of(keys)), out_shardings=devices.replicated(mesh))

    def fit(state: LearnerState, memory: replay.Replay, keys: Array) -> tuple[LearnerState, list[dict[str, Any]]]:
        first, found = int(np.asarray(state.updates)[0]) + 1, []
        for each in keys_of(keys):
            processes.check()
            with devices.no_transfers():
                state, metrics = jax.block_until_ready(phase(state, memory, each))
            found.append(jax.device_get(metrics))
        rows = jax.tree.map(lambda *parts: np.concatenate(parts), *found)  # [updates, S]
        rows = [member(rows, (slice(None), i)) for i in range(len(owners))]
        for owner, row in zip(owners, rows, strict=True):
            check_finite(row, first, owner)
        return state, [{f"train/{name}": x.mean() for name, x in row.items() if name != "grad_finite"} for row in rows]

    return fit
