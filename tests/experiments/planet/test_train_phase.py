"""A training phase is one program that copies nothing and needs no more memory the longer a run gets."""

import jax
import numpy as np
import pytest

from experiments.planet import phases
from experiments.planet.config import TrainConfig
from tests.fakes import SPEC, random_steps
from wmjax import replay
from wmjax.models import rssm
from wmjax.run import devices, replays
from wmjax.train import make_phase, with_average

TINY = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=8, stochastic=4, deterministic=6, hidden=5)
TRAIN = TrainConfig(batch=2, chunk=3, average_decay=0.9)
UPDATES = 10


@pytest.mark.parametrize("members", [1, 2])
def test_one_program_no_copies_flat_memory(members):
    mesh = devices.make_mesh(1)
    _, learner = rssm.make(rssm.RSSMConfig(reward_units=5, **TINY), SPEC)
    learner = with_average(learner, TRAIN.average_decay)
    phase = make_phase(phases.make_update(learner, TRAIN, mesh), sharding=devices.replicated(mesh))
    steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, 1, 9))  # [T, E]
    memory = replays.make_memory(20, 1, jax.tree.map(lambda x: x[0], steps), members, mesh)
    memory = jax.jit(jax.vmap(replay.extend, (0, None)), donate_argnums=0)(memory, steps)
    state = jax.jit(jax.vmap(learner.init), out_shardings=devices.replicated(mesh))(
        jax.random.split(jax.random.key(0), members)
    )
    keys = jax.device_put(jax.random.split(jax.random.key(1), (UPDATES, members)), devices.replicated(mesh))
    held = []
    for _ in range(10):
        with jax.transfer_guard("disallow"):
            state, metrics = jax.block_until_ready(phase(state, memory, keys))
        held.append(sum(x.nbytes for x in jax.live_arrays()))
    assert phase._cache_size() == 1
    assert len(set(held[1:])) == 1
    assert np.asarray(state.updates).tolist() == [10 * UPDATES] * members
    assert metrics["loss"].shape == (UPDATES, members)
