"""Looks at this machine and at what the training of an agent that queries a model needs of it: the model, and disk.

    python -m experiments.i2a.doctor --config=experiments/i2a/config.py:minipacman:regular,uniform,cpu \\
        --config.model_run=simulator

As python -m wmjax.doctor, with its exit codes. The model is loaded, and what the run's main would refuse at its start
is refused here too. How long the run takes is not estimated.
"""

import sys
from collections.abc import Iterator

import jax

from experiments.i2a import agent as agents
from experiments.i2a import config as configs
from experiments.i2a import phases
from experiments.training import read_looked_at
from wmjax import doctor, memory
from wmjax.run import cli


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_looked_at(argv, __name__, configs)
    chosen = agents.settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(chosen, workdir), workdir))


def run_points(chosen: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of model, memory and disk of a run; raises UsageError where its main refuses the config."""
    mesh = agents.make_mesh(chosen)
    spec, env = agents.spec_of(chosen)
    init_key, world_key, begin_key, *_ = agents.keys_of(chosen.seed)
    world = agents.make_world(chosen, spec, env, world_key)
    made = agents.make(chosen, spec, world)
    agents.make_env(chosen, chosen.evaluation.episodes, "evaluation").close()
    loop = phases.make_loop(chosen, env, made, world.params, mesh)
    learner = jax.eval_shape(made.learner.init, init_key)
    playing = jax.eval_shape(loop.begin, learner.params, begin_key)
    asked = f"asks {chosen.model_run}" if chosen.model_run else "asks no model"
    yield doctor.Point("agent", f"{chosen.kind} {asked}: {spec.action.size} actions, images of {spec.obs_shape}")
    saved = (chosen.train.keep_checkpoints + 1) * memory.nbytes((learner, playing))
    yield from doctor.room(workdir, doctor.Needs(disk=saved))


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
