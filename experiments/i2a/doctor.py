"""Looks at this machine and at what an agent that queries a model needs of it: the model, memory, disk and time.

    python -m experiments.i2a.doctor --config=experiments/i2a/config.py:minipacman:regular,uniform,cpu \\
        --config.model_run=simulator

As python -m wmjax.doctor, with its exit codes. The model is loaded, and what the run's main would refuse at its start
is refused here too. Then come ten seconds of acting and learning at the config's own sizes, from which the minutes of
the run are estimated.
"""

import sys
from collections.abc import Iterator

import jax

from experiments.i2a import agent as agents
from experiments.i2a import config as configs
from experiments.i2a import phases
from experiments.training import read_doctor_command
from wmjax import doctor, memory
from wmjax.run import cli, devices
from wmjax.run.stopwatch import Stopwatch

SECONDS = 10.0  # of the probe


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_doctor_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(settings, workdir), workdir))


def run_points(settings: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of model, room and time of a run; raises UsageError where its main refuses the config."""
    mesh, train = agents.make_mesh(settings), settings.train
    whole = devices.replicated(mesh)
    spec, env = agents.spec_of(settings)
    init_key, world_key, begin_key, train_key, _ = agents.keys_of(settings.seed)
    world = agents.make_world(settings, spec, env, world_key)
    made = agents.make(settings, spec, world)
    agents.make_env(settings, settings.evaluation.episodes, "evaluation").close()
    loop = phases.make_loop(settings, env, made, jax.device_put(world.params, whole), mesh)
    asked = f"asks {settings.model_run}" if settings.model_run else "asks no model"
    yield doctor.Point("agent", f"{settings.kind} {asked}: {spec.action.size} actions, images of {spec.obs_shape}")
    load = doctor.load()
    learner = jax.jit(made.learner.init, out_shardings=whole)(init_key)
    playing = loop.begin(learner.params, begin_key)
    keys = jax.device_put(train_key[None], whole)

    def update() -> None:
        nonlocal learner, playing
        learner, playing, *_ = loop.advance(learner, playing, keys, Stopwatch())

    update()  # compiles
    cost = doctor.seconds_of(update, SECONDS)
    saved = (train.keep_checkpoints + 1) * memory.nbytes((learner, playing))
    yield from doctor.room(workdir, doctor.Needs(disk=saved))
    minutes, decisions = train.updates * cost / 60, train.rows * train.decisions
    each = f"an update, with its {decisions} decisions, takes {cost:.3f} s"
    yield doctor.Point("time", f"about {minutes:.0f} minutes beside evaluations, an estimate: {each}; {load}")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
