"""Trains one environment model (Buesing et al. 2018, section 2.3) on recorded sequences, or on bouncing balls.

    python -m experiments.environment_models --config=experiments/environment_models/config.py:ball,sssm,cpu --workdir=runs/a

The same command in the same folder resumes. Settings: --config.key=value; see config.py.
"""  # noqa: E501

import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments.environment_models import config as configs
from experiments.environment_models import parts
from wmjax.models import state_space
from wmjax.run import checkpoint, devices, talk, workdir
from wmjax.run import main as mains
from wmjax.run.finite import check_finite
from wmjax.run.metrics import MetricsWriter, read_metrics
from wmjax.run.progress import Progress
from wmjax.run.report import write_report, write_summary
from wmjax.run.talk import try_drawing
from wmjax.run.timers import Timers
from wmjax.run.video import write_film
from wmjax.types import UsageError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="experiments/environment_models/config.py:DATA,MODEL,PRESET"
)
WORKDIR = mains.path_flag("workdir", "folder of the run")
MINUTES = flags.DEFINE_float("minutes", None, "stop in order after this many minutes")


def main(argv):
    """Trains to the end, or to --minutes. argv: the command line."""
    mains.parse_flags(argv, __name__, configs)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UsageError(
            "give --config=experiments/environment_models/config.py:<data>,<model>,<preset> and --workdir=DIR"
        )
    mains.use_jax()
    chosen = parts.settings(CONFIG.value)
    train = chosen.train
    folder = pathlib.Path(WORKDIR.value)

    # Everything that can be refused is made before the folder is touched.
    data = parts.load(chosen)
    model, learner = state_space.make(chosen.model, data.spec)
    chunks = parts.held_out(chosen, data.test)
    workdir.open_workdir(folder, CONFIG.value.to_dict() | parts.identity(chosen))

    phase = parts.make_phase(learner, chosen)
    evaluate = parts.make_evaluate(chosen, data.spec)
    futures = parts.make_futures(model, chosen, data.spec)
    chunk, truth = parts.pictured(chosen, chunks)
    fold_in = jax.jit(jax.random.fold_in)
    init_key, train_key, eval_key = parts.keys_of(chosen.seed)

    # A run is the state below.
    state = parts.make_init(learner, chosen)(init_key, data.train)
    counters: dict[str, Any] = dict(updates=0, minutes=0.0, metrics_bytes=0)
    restored = checkpoint.restore_latest(folder, dict(learner=state, counters=counters))
    if restored:
        state, counters = restored[1]["learner"], restored[1]["counters"]
        talk.say(f"resumed after update {counters['updates']}")
    writer = MetricsWriter(folder, counters["metrics_bytes"])
    start_minutes = counters["minutes"]
    progress = Progress(
        train.updates, MINUTES.value, done_episodes=counters["updates"], done_minutes=start_minutes, unit="update"
    )
    timers = Timers()

    def out_of_time():
        return MINUTES.value is not None and progress.elapsed_minutes() - start_minutes >= MINUTES.value

    while counters["updates"] < train.updates and not out_of_time():
        begun, done = time.monotonic(), counters["updates"]
        with timers("train"), devices.no_transfers():
            key = jax.block_until_ready(fold_in(train_key, jax.device_put(np.int32(done))))
            state, losses = jax.block_until_ready(phase(state, data.train, key))
        losses = jax.device_get(losses)
        check_finite(losses, state.params, done + 1)
        counters["updates"] += train.every
        row = {f"train/{name}": x.mean() for name, x in losses.items() if name != "grad_finite"}
        with timers("evaluate"):
            found = jax.device_get(evaluate(state.params, eval_key, chunks))
            row |= {f"eval/{name}": x.mean() for name, x in found.items()}
            drawn = np.asarray(futures(state.params, eval_key, chunk))
            shown = dict(truth=truth) | {f"future {i + 1}": images for i, images in enumerate(drawn)}
            picture = folder / "videos" / f"futures_{counters['updates']:07d}.png"
            try_drawing(write_film, picture, shown, state_space.CONTEXT, 1)

        row = dict(updates=counters["updates"]) | row | timers.flush() | {"time/total": time.monotonic() - begun}
        writer.write(row)
        progress.show(row)
        counters |= dict(metrics_bytes=writer.offset, minutes=progress.elapsed_minutes())
        checkpoint.save(
            folder, counters["updates"], dict(learner=state, counters=counters), keep=train.keep_checkpoints
        )
        try_drawing(write_report, folder)

    progress.close()
    writer.close()
    evaluations = [row for row in read_metrics(folder) if "eval/loss" in row]
    wanted = ("updates", "eval/loss", "eval/loss_tighter")
    try_drawing(
        write_summary,
        folder,
        dict(
            finished=counters["updates"] >= train.updates,
            minutes=progress.elapsed_minutes(),
            updates=counters["updates"],
            evaluations=[{name: row[name] for name in wanted} for row in evaluations],
        ),
    )
    talk.say(f"report: {try_drawing(write_report, folder) or 'could not be written'}")


if __name__ == "__main__":
    sys.exit(mains.run(main, sys.argv))
