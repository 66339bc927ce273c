"""A training phase is one program that copies nothing and needs no more memory the longer a run gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.planet import offline, phases
from experiments.planet.config import TrainConfig
from tests.fakes import SPEC, random_steps
from wmjax import replay
from wmjax.models import rssm
from wmjax.run import devices, replays
from wmjax.train import make_phase, with_average
from wmjax.types import Learner, LearnerState, UsageError

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


def recording_learner(count):
    """A Learner whose n-th update keeps what its key draws, and whether its batch meets another episode's beginning."""

    def update(state, key, batch):
        found = dict(drawn=jax.random.uniform(key), crossed=batch.is_first[:, 1:].any())
        kept = jax.tree.map(lambda all, one: all.at[state.updates].set(one), state.params, found)
        return state.replace(params=kept, updates=state.updates + 1), dict(grad_finite={}, **found)

    params = dict(drawn=jnp.zeros(count), crossed=jnp.zeros(count, bool))
    return Learner(lambda key: LearnerState(params, (), jnp.int32(0)), update)


@pytest.mark.parametrize("within", [True, False])
def test_every_update_has_a_key_of_its_own_over_dispatches(within, monkeypatch):
    """Of members too, and of offline training; chunks cross episodes only where they may."""
    monkeypatch.setattr(phases, "DISPATCHED", 2)
    mesh, train = devices.make_mesh(1), TrainConfig(batch=16, chunk=3, within_episodes=within)
    learner = recording_learner(4)
    steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, 1, 12))  # [T, E]
    steps.is_first[::4] = True
    state = jax.jit(jax.vmap(learner.init), out_shardings=devices.replicated(mesh))(np.arange(2))
    memory = replays.make_memory(12, 1, jax.tree.map(lambda x: x[0], steps), 2, mesh)
    memory = replays.make_extend(memory)(memory, jax.tree.map(lambda x: x.repeat(2, axis=1), steps))
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = phases.make_fit(learner, train, mesh, 4, ["a", "b"])(state, memory, keys)
    assert len(np.unique(state.params["drawn"])) == 8 and state.params["crossed"].any() == (not within)

    state = jax.jit(jax.vmap(learner.init), out_shardings=devices.replicated(mesh))(np.arange(1))
    run = dict(learner=state, counters=dict(updates=0, measured=0), losses={})
    advance = offline.make_train(learner, train, mesh, offline.fill([steps], mesh), 2, keys[:1])
    run = advance(advance(run))
    assert len(np.unique(run["losses"]["drawn"])) == 4 == run["counters"]["updates"]
    np.testing.assert_array_equal(run["losses"]["drawn"], run["learner"].params["drawn"][0])


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_an_average_that_never_moves_or_runs_away_is_refused(decay):
    with pytest.raises(UsageError, match=f"decay {decay} of the average"):
        with_average(Learner(None, None), decay)
