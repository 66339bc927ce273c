"""Trains one environment model (Buesing et al. 2018, section 2.3) on recorded sequences, or on bouncing balls.

    python -m experiments.environment_models --config=experiments/environment_models/config.py:ball,sssm,cpu --workdir=runs/a

One run in several processes: --distributed=HOST:PORT/N/I in each of them, and --config.devices=all (docs/runs.md,
"Several processes").

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""  # noqa: E501

import sys
from typing import Any

import jax
import numpy as np

from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from experiments.environment_models import data as sequences
from experiments.environment_models import phases, predictions
from experiments.training import read_command
from wmjax.console import try_drawing
from wmjax.models import state_space
from wmjax.report.metrics import appended
from wmjax.report.video import write_film
from wmjax.run import cli, devices, lifecycle, stop
from wmjax.run.members import Member
from wmjax.storage import checkpoint
from wmjax.train import check_finite


def main(argv: list[str]) -> None:
    """Trains to the end, or to --minutes. argv: the command line."""
    config, folder, minutes = read_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    train = settings.train

    # Everything that can be refused is made before the folder is touched.
    mesh = agents.make_mesh(settings)
    data = sequences.load(settings, mesh)
    model, learner = state_space.make(settings.model, data.spec)
    chunks = sequences.held_out(settings, data.test, data.test_images)
    run = lifecycle.open_run(
        folder,
        config.to_dict() | sequences.identity(settings),
        [Member(settings.task, settings.seed)],
        may_differ=configs.MAY_DIFFER,
        unit="update",
        planned=train.updates,
        minutes=minutes,
        keep=train.keep_checkpoints,
        pictures=[predictions.FUTURES],
    )

    size = stop.dispatch_size(train.every, phases.DISPATCHED)
    phase = phases.make_training(learner, settings, data, mesh)
    evaluate = predictions.make_evaluate(settings, data.spec, mesh)
    futures = predictions.make_futures(model, settings, data.spec)
    chunk, truth = predictions.pictured(settings, chunks)
    by_dispatch = jax.jit(
        lambda key, first: tuple(jax.random.split(jax.random.fold_in(key, first), (train.every // size, size))),
        out_shardings=devices.replicated(mesh),
    )
    init_key, train_key, eval_key = agents.keys_of(settings.seed)

    # A run is the state below. losses: of the updates since the newest evaluation, which came after `evaluated` ones.
    state = agents.make_init(learner, settings, mesh)(init_key, sequences.background(settings, data))
    counters: dict[str, Any] = dict(updates=0, evaluated=0)
    losses: dict[str, np.ndarray] = {}
    saved = run.restore(dict(learner=state, counters=counters, losses=checkpoint.AS_SAVED))
    if saved:
        state, counters, losses = (saved[name] for name in ("learner", "counters", "losses"))

    def hold() -> None:
        run.hold(counters["updates"], dict(learner=state, counters=dict(counters), losses=losses))

    def evaluate_and_draw() -> dict[str, Any]:
        """Metrics: what the held-out chunks cost, and the mean losses of the updates since the newest evaluation."""
        found = jax.device_get(evaluate(state.params, eval_key, chunks))
        drawn = np.asarray(futures(state.params, eval_key, chunk))
        images = dict(truth=truth) | {f"future {i + 1}": each for i, each in enumerate(drawn)}
        picture = folder / "videos" / f"futures_{counters['updates']:07d}.png"
        try_drawing(write_film, picture, images, state_space.CONTEXT, 1)
        row = {f"train/{name}": x.mean() for name, x in losses.items()}
        return row | {f"eval/{name}": x.mean() for name, x in found.items()}

    hold()
    while run.goes_on(counters["evaluated"]):
        done = counters["updates"] % train.every
        if done or counters["updates"] == counters["evaluated"]:
            keys = by_dispatch(train_key, np.int32(counters["updates"] - done))[done // size]
            with run.stopwatch("train"), devices.no_transfers():
                state, metrics = jax.block_until_ready(phase(state, keys))
            metrics = jax.device_get(metrics)
            check_finite(metrics, counters["updates"] + 1)
            del metrics["grad_finite"]
            losses = appended(losses, metrics)
            counters["updates"] += size
            hold()
            run.progress.phase("training", done // size + 1, train.every // size)
            continue

        run.save()  # first: what follows may fail, and repeating it costs little
        with run.evaluating():
            row = evaluate_and_draw()
        run.write(dict(updates=counters["updates"]), [row])
        counters["evaluated"], losses = counters["updates"], {}
        hold()
        if counters["evaluated"] < train.updates:  # the last one is written by `finish`
            run.write_reports()

    run.save()
    counted = dict(updates=counters["updates"])
    if run.is_cut_short(counters["evaluated"]) and counters["updates"] > counters["evaluated"]:
        run.write_lines([counted | evaluate_and_draw()])
    run.finish(counters["evaluated"], counted)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
