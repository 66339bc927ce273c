"""Looks at this machine and at what a run of Smaller World Models needs of it: memory and disk.

    python -m experiments.smaller_world_models.doctor --config=experiments/smaller_world_models/config.py:Pong,cpu

As python -m wmjax.doctor, with its exit codes. What the run's main would refuse at its start is refused here too. How
long the run takes is not estimated.
"""

import sys
from collections.abc import Iterator

import jax

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import phases
from experiments.training import read_looked_at
from wmjax import doctor, memory, replay
from wmjax.run import cli
from wmjax.run.members import member_keys


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_looked_at(argv, __name__, configs)
    chosen = agents.settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(chosen, workdir), workdir))


def run_points(chosen: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of memory and disk of a run; raises UsageError where its main refuses the config."""
    yield from doctor.room(workdir, needs(chosen, phases.prepare(chosen)))


def needs(chosen: agents.Settings, prepared: phases.Prepared) -> doctor.Needs:
    """The Needs of a run: replay, model and policy in memory; checkpoints and, uncompressed, all rows on disk."""
    train, members, (*_, example, agent, capacity) = chosen.train, len(chosen.members), prepared
    ring = members * replay.nbytes(capacity, example)
    inits = [jax.vmap(agent.learner.init), jax.vmap(agent.policy.init)]
    learnt = memory.nbytes([jax.eval_shape(init, member_keys(chosen.members, 1)[0]) for init in inits])
    part = 0.9 * (memory.free_memory() or ring) / (ring + learnt)
    fewer = ",".join(str(max(1, int(part * each))) for each in train.interactions)
    smaller = f"--config.train.interactions='({fewer},)'"
    return doctor.Needs(ring + learnt, ring + (train.keep_checkpoints + 1) * learnt, smaller)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
