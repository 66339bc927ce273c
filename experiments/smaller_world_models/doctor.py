"""Looks at this machine and at what a run of Smaller World Models needs of it: memory, disk and time.

    python -m experiments.smaller_world_models.doctor --config=experiments/smaller_world_models/config.py:Pong,cpu

As python -m wmjax.doctor, with its exit codes. What the run's main would refuse at its start is refused here too. Then
come ten seconds of decisions and of each phase's updates at the config's own sizes, from which the minutes of the run
are estimated.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import phases
from experiments.smaller_world_models.phases import BINS, at
from experiments.training import read_doctor_command
from wmjax import doctor, memory, replay
from wmjax.run import cli, devices, pools, replays
from wmjax.run.collect import arrivals, make_player
from wmjax.run.members import member_keys
from wmjax.run.stopwatch import Stopwatch

SECONDS = 10.0  # of the probe: a quarter each for decisions and the updates of three phases


class Costs(NamedTuple):
    """Seconds that one of each takes, of all members."""

    decision: float  # of the collection
    warm_up: float  # update of the autoencoder
    fit: float  # cycle of the first iteration: one update of the autoencoder, so many of the dynamics
    dream: float  # round of imagined episodes and the policy's updates on them


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_doctor_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(settings, workdir), workdir))


def run_points(settings: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of memory, disk and time of a run; raises UsageError where its main refuses the config."""
    prepared = phases.prepare(settings)
    found = list(doctor.room(workdir, needs(settings, prepared)))
    yield from found
    if any(point.mend for point in found):
        yield doctor.Point("time", "to be looked at when there is room")
        return
    load = doctor.load()
    costs = probe(settings, prepared)
    each = ", ".join(f"{name.replace('_', ' ')} {seconds:.3f} s" for name, seconds in costs._asdict().items())
    estimate = f"about {minutes(settings, costs):.0f} minutes beside evaluations, an estimate: one {each}"
    yield doctor.Point("time", f"{estimate}; {load}")


def needs(settings: agents.Settings, prepared: phases.Prepared) -> doctor.Needs:
    """The Needs of a run: replay, model and policy in memory; checkpoints and, uncompressed, all rows on disk."""
    train, members, (*_, example, agent, capacity) = settings.train, len(settings.members), prepared
    ring = members * replay.nbytes(capacity, example)
    inits = [jax.vmap(agent.learner.init), jax.vmap(agent.policy.init)]
    learnt = memory.nbytes([jax.eval_shape(init, member_keys(settings.members, 1)[0]) for init in inits])
    part = 0.9 * (memory.free_memory() or ring) / (ring + learnt)
    fewer = ",".join(str(max(1, int(part * each))) for each in train.interactions)
    smaller = f"--config.train.interactions='({fewer},)'"
    return doctor.Needs(ring + learnt, ring + (train.keep_checkpoints + 1) * learnt, smaller)


def probe(settings: agents.Settings, prepared: phases.Prepared) -> Costs:
    """Costs of a run, on a replay of one episode in which nothing happens; about ten seconds beside compiling."""
    train, (mesh, _, example, agent, _) = settings.train, prepared
    members, whole = len(settings.members), devices.replicated(mesh)
    world_keys, policy_keys, act_keys, train_keys = member_keys(settings.members, 4)
    world = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(world_keys)
    policy = jax.jit(jax.vmap(agent.policy.init), out_shardings=whole)(policy_keys)
    length = train.dynamics_chunk + train.frames
    ring = replays.make_constant(length, 1, example, members, mesh)

    env = pools.single_envs(settings.members, settings.env)
    player = make_player(agent.actor, 1, explore=True, sharding=whole)
    params = dict(model=world.params, policy=policy.params)
    decide = arrivals(env, player, params, act_keys, Stopwatch(), env.reset()).__next__

    def updates(name: str, trained: Any) -> Callable[[], None]:
        """A function that makes one update of a phase, whose states' buffers are used again."""
        trainer, curve = phases.MAKERS[name](agent, train, mesh), phases.curve(name, train, 0, length)
        numbers = jax.device_put((*map(np.int32, (0, 0, 1)), *curve.numbers), whole)

        def update() -> None:
            nonlocal trained
            trained, _ = jax.block_until_ready(trainer(trained, ring, train_keys, *numbers))

        return update

    copy = lambda tree: jax.tree.map(lambda x: x.copy(), tree)
    trained = dict(warm_up=world, fit=world, dream=(world, policy))
    steps = [decide, *(updates(name, copy(states)) for name, states in trained.items())]
    for compiled in steps:
        compiled()
    return Costs(*(doctor.seconds_of(step, SECONDS / len(steps)) for step in steps))


def minutes(settings: agents.Settings, costs: Costs) -> float:
    """Estimated minutes of a run, without evaluations, compiling, drawing and saving."""
    train, seconds, kept = settings.train, 0.0, 1
    dynamics = (costs.fit - costs.warm_up) / at(train.intervals, 0)  # one update
    for iteration in range(train.iterations):
        kept += at(train.interactions, iteration)
        curves = {name: phases.curve(name, train, iteration, kept) for name in ("warm_up", "fit", "dream")}
        cycle = costs.warm_up + at(train.intervals, iteration) * dynamics
        seconds += at(train.interactions, iteration) * costs.decision
        seconds += BINS * (curves["fit"].updates * cycle + curves["dream"].updates * costs.dream)
        if iteration == 0:
            seconds += BINS * curves["warm_up"].updates * costs.warm_up
    return seconds / 60


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
