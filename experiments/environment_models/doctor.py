"""Looks at this machine and at what the training of an environment model needs of it: its data, memory and disk.

    python -m experiments.environment_models.doctor --config=experiments/environment_models/config.py:ball,sssm,cpu

As python -m wmjax.doctor, with its exit codes. The data are read or made, and what the run's main would refuse at its
start is refused here too. How long the run takes is not estimated.
"""

import sys
from collections.abc import Iterator

import jax

from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from experiments.environment_models import data as sequences
from experiments.training import read_looked_at
from wmjax import doctor, memory
from wmjax.models import state_space
from wmjax.run import cli


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_looked_at(argv, __name__, configs)
    chosen = agents.settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(chosen, workdir), workdir))


def run_points(chosen: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of data, memory and disk of a run; raises UsageError where its main refuses the config."""
    mesh = agents.make_mesh(chosen)
    data = sequences.load(chosen, mesh)  # what this process holds of them, a run holds too
    _, learner = state_space.make(chosen.model, data.spec)
    sequences.held_out(chosen, data.test, data.test_images)
    counts = [len(each.rows.reward) for each in (data.train, data.test)]
    size = memory.nbytes(data[1:]) / 1e9  # all but the spec
    yield doctor.Point("data", f"{counts[0]} sequences to train on and {counts[1]} held out, {size:.2f} GB of memory")
    init, begins_at = agents.make_init(learner, chosen, mesh), sequences.background(chosen, data)
    state = jax.eval_shape(init, jax.random.key(0), begins_at)
    saved = (chosen.train.keep_checkpoints + 1) * memory.nbytes(state)
    yield from doctor.room(workdir, doctor.Needs(disk=saved))


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
