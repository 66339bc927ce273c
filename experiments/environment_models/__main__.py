"""Trains one environment model (Buesing et al. 2018, section 2.3) on recorded sequences, or on bouncing balls.

    python -m experiments.environment_models --config=experiments/environment_models/config.py:ball,sssm,cpu --workdir=runs/a

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""  # noqa: E501

import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import config_flags

from experiments.environment_models import config as configs
from experiments.environment_models import parts
from experiments.environment_models.config import MAY_DIFFER
from wmjax import console
from wmjax.console import try_drawing
from wmjax.models import state_space
from wmjax.report.metrics import MetricsWriter, read_metrics
from wmjax.report.page import drop_summary, write_report, write_summary
from wmjax.report.progress import Progress
from wmjax.report.video import write_film
from wmjax.run import cli, devices, stop
from wmjax.run.stopwatch import Timers
from wmjax.storage import checkpoint, workdir
from wmjax.train import check_finite
from wmjax.types import UsageError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="experiments/environment_models/config.py:DATA,MODEL,PRESET"
)
WORKDIR = cli.path_flag("workdir", "folder of the run")
MINUTES = cli.define_minutes("stop in order after this many minutes, with a last evaluation")


def main(argv):
    """Trains to the end, or to --minutes. argv: the command line."""
    cli.parse_flags(argv, __name__, configs)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UsageError(
            "give --config=experiments/environment_models/config.py:<data>,<model>,<preset> and --workdir=DIR"
        )
    cli.use_jax()
    chosen = parts.settings(CONFIG.value)
    train = chosen.train
    folder = pathlib.Path(WORKDIR.value)

    # Everything that can be refused is made before the folder is touched.
    data = parts.load(chosen)
    model, learner = state_space.make(chosen.model, data.spec)
    chunks = parts.held_out(chosen, data.test)
    workdir.open_workdir(folder, CONFIG.value.to_dict() | parts.identity(chosen), MAY_DIFFER)
    drop_summary(folder)
    stop.listen()

    size = stop.dispatch_size(train.every, parts.DISPATCHED)
    phase = parts.make_phase(learner, chosen)
    evaluate = parts.make_evaluate(chosen, data.spec)
    futures = parts.make_futures(model, chosen, data.spec)
    chunk, truth = parts.pictured(chosen, chunks)
    by_dispatch = jax.jit(
        lambda key, first: tuple(jax.random.split(jax.random.fold_in(key, first), (train.every // size, size)))
    )
    init_key, train_key, eval_key = parts.keys_of(chosen.seed)

    # A run is the state below. losses: of the updates since the last evaluation.
    state = parts.make_init(learner, chosen)(init_key, data.train)
    counters: dict[str, Any] = dict(updates=0, minutes=0.0, metrics_bytes=0, evaluated=0, row_minutes=0.0)
    losses: dict[str, np.ndarray] = {}
    restored = checkpoint.restore_latest(folder, dict(learner=state, counters=counters, losses=checkpoint.AS_SAVED))
    if restored:
        state, counters, losses = (restored[1][name] for name in ("learner", "counters", "losses"))
        console.say(f"resumed after update {counters['updates']}")
    writer = MetricsWriter(folder, counters["metrics_bytes"])
    progress = Progress(train.updates, MINUTES.value, done_minutes=counters["minutes"], unit="update")
    timers = Timers()
    took, saved = None, True  # took: seconds of the newest evaluation

    def save():
        now = dict(metrics_bytes=writer.offset, minutes=progress.elapsed_minutes())
        whole = dict(learner=state, counters=counters | now, losses=losses)
        checkpoint.save(folder, counters["updates"], whole, keep=train.keep_checkpoints)

    def evaluate_and_draw():
        """A line of metrics: what the held-out chunks cost, and the mean losses of the updates since the last one."""
        row = {f"train/{name}": x.mean() for name, x in losses.items()}
        with timers("evaluate"):
            found = jax.device_get(evaluate(state.params, eval_key, chunks))
            row |= {f"eval/{name}": x.mean() for name, x in found.items()}
            drawn = np.asarray(futures(state.params, eval_key, chunk))
            shown = dict(truth=truth) | {f"future {i + 1}": images for i, images in enumerate(drawn)}
            picture = folder / "videos" / f"futures_{counters['updates']:07d}.png"
            try_drawing(write_film, picture, shown, state_space.CONTEXT, 1)
        seconds = 60 * (progress.elapsed_minutes() - counters["row_minutes"])
        return dict(updates=counters["updates"]) | row | timers.flush() | {"time/total": seconds}

    while counters["evaluated"] < train.updates and not stop.asked() and not progress.out_of_time(took):
        done = counters["updates"] % train.every
        if done or counters["updates"] == counters["evaluated"]:
            with timers("train"), devices.no_transfers():
                keys = by_dispatch(train_key, jax.device_put(np.int32(counters["updates"] - done)))[done // size]
                state, some = jax.block_until_ready(phase(state, data.train, keys))
            some = jax.device_get(some)
            check_finite(some, state.params, counters["updates"] + 1)
            del some["grad_finite"]
            losses = {name: np.concatenate([losses.get(name, x[:0]), x]) for name, x in some.items()}
            counters["updates"] += size
            progress.phase("training", done // size + 1, train.every // size)
            saved = False
            continue

        save()  # first: what follows may fail, and repeating it costs little
        begun = time.monotonic()
        row = evaluate_and_draw()
        took = time.monotonic() - begun
        writer.write(row)
        progress.show(row)
        counters |= dict(evaluated=counters["updates"], row_minutes=progress.elapsed_minutes())
        losses, saved = {}, False
        try_drawing(write_report, folder)

    if not saved:
        save()
    finished = counters["evaluated"] >= train.updates
    if not finished and not stop.asked() and counters["updates"] > counters["evaluated"]:
        # After --minutes: a resumed run cuts this line off again, for the checkpoint counts those before it.
        writer.write(evaluate_and_draw())

    progress.close()
    writer.close()
    evaluations = [row for row in read_metrics(folder) if "eval/loss" in row]
    wanted = ("updates", "eval/loss", "eval/loss_tighter")
    try_drawing(
        write_summary,
        folder,
        dict(
            finished=finished,
            minutes=progress.elapsed_minutes(),
            planned=dict(updates=train.updates),
            updates=counters["updates"],
            evaluations=[{name: row[name] for name in wanted} for row in evaluations],
        ),
    )
    console.say(f"report: {try_drawing(write_report, folder) or 'could not be written'}")
    if not finished:
        stop.check()


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
