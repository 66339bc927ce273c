"""Looks at this machine and at what the training of an environment model needs of it: its data, memory, disk and time.

    python -m experiments.environment_models.doctor --config=experiments/environment_models/config.py:ball,sssm,cpu

As python -m wmjax.doctor, with its exit codes. The data are read or made, and what the run's main would refuse at its
start is refused here too. Then come ten seconds of updates and evaluations at the config's own sizes, from which the
minutes of the run are estimated.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from experiments.environment_models import data as sequences
from experiments.environment_models import phases, predictions
from experiments.training import read_doctor_command
from wmjax import doctor, memory
from wmjax.models import state_space
from wmjax.run import cli, devices
from wmjax.types import Learner, LearnerState, Step

SECONDS = 10.0  # of the probe: two thirds for updates


class Costs(NamedTuple):
    """Seconds that one of each takes."""

    update: float
    evaluation: float


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_doctor_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(settings, workdir), workdir))


def run_points(settings: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of data, room and time of a run; raises UsageError where its main refuses the config."""
    mesh = agents.make_mesh(settings)
    data = sequences.load(settings, mesh)  # what this process holds of them, a run holds too
    _, learner = state_space.make(settings.model, data.spec)
    chunks = sequences.held_out(settings, data.test, data.test_images)
    counts = [len(each.rows.reward) for each in (data.train, data.test)]
    size = memory.nbytes(data[1:]) / 1e9  # all but the spec
    yield doctor.Point("data", f"{counts[0]} sequences to train on and {counts[1]} held out, {size:.2f} GB of memory")
    load = doctor.load()
    costs, state = probe(settings, data, learner, chunks, mesh)
    yield from doctor.room(workdir, doctor.Needs(disk=(settings.train.keep_checkpoints + 1) * memory.nbytes(state)))
    each = f"an update takes {costs.update:.3f} s, an evaluation {costs.evaluation:.1f} s"
    yield doctor.Point("time", f"about {minutes(settings, costs):.0f} minutes, an estimate: {each}; {load}")


def probe(
    settings: agents.Settings, data: sequences.Data, learner: Learner, chunks: Step, mesh: Mesh
) -> tuple[Costs, LearnerState]:
    """Costs of a run, and its LearnerState after a few updates; takes about ten seconds beside compiling.

    Args: data, learner, chunks: as in the run's main.
    """
    init_key, train_key, eval_key = agents.keys_of(settings.seed)
    state = agents.make_init(learner, settings, mesh)(init_key, sequences.background(settings, data))
    phase = phases.make_training(learner, settings, data, mesh)
    evaluation = predictions.make_evaluate(settings, data.spec, mesh)
    keys = jax.device_put(train_key[None], devices.replicated(mesh))

    def update() -> None:
        nonlocal state  # its buffers are used again
        state, _ = jax.block_until_ready(phase(state, keys))

    def evaluate() -> None:
        jax.block_until_ready(evaluation(state.params, eval_key, chunks))

    for compiled in (update, evaluate):
        compiled()
    costs = Costs(doctor.seconds_of(update, SECONDS * 2 / 3), doctor.seconds_of(evaluate, SECONDS / 3))
    return costs, state


def minutes(settings: agents.Settings, costs: Costs) -> float:
    """Estimated minutes of a run, without compiling, drawing and saving."""
    train = settings.train
    return (train.updates * costs.update + train.updates // train.every * costs.evaluation) / 60


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
