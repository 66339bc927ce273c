"""What each of the four helpers of games brings: an environment model trained with all, and with each one left out.

    python -m experiments.environment_models.ablations --data=data/p --folder=runs/ablations --cores=0,1

Trains every variant with every seed by `python -m experiments.environment_models` in a folder of its own; the same
command resumes what was interrupted. Prints the held-out losses, and writes them as table.md into --folder. What a
run says is in <run>.log. With --cores there are as many runs at a time, each pinned to one core by `taskset`.
"""

import pathlib
import queue
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import flags

from experiments.environment_models.runs import train
from wmjax import console
from wmjax.models.state_space import KINDS, StateSpaceConfig
from wmjax.report.metrics import read_metrics
from wmjax.report.page import markdown, write_whole
from wmjax.report.statistics import half_interval
from wmjax.run import cli
from wmjax.types import UsageError

# What is left out -> the setting that takes its value of the paper.
HELPERS = dict(
    background="contrast", zero_last_layer="last_layer_scale", small_std="latent_std", kl_annealing="kl_anneal_target"
)
ALL = "all_helpers"

DATA = flags.DEFINE_string("data", None, "a recorded folder, ball or ball:drifting")
FOLDER = cli.path_flag("folder", "where the runs are, or will be")
MODEL = flags.DEFINE_string("model", "sssm", "kind of environment model")
SEEDS = flags.DEFINE_integer("seeds", 3, "of every variant, from 0", lower_bound=1, upper_bound=100)
UPDATES = flags.DEFINE_integer("updates", 1600, "of every run", lower_bound=1)
CORES = flags.DEFINE_list("cores", [], "numbers of cores, a run on each; none: one run at a time on all cores")
SET = flags.DEFINE_multi_string("set", [], "setting of every run, as model.jump=3; once or more")


def main(argv):
    """Trains what is missing and prints the table once. argv: the command line."""
    cli.parse_flags(argv, __name__)
    folder = check()
    folder.mkdir(parents=True, exist_ok=True)
    variants = {ALL: []} | {f"without_{helper}": left_out(name) for helper, name in HELPERS.items()}
    runs = {name: [folder / f"{name}_seed_{seed}" for seed in range(SEEDS.value)] for name in variants}
    train_all([(runs[name][seed], seed, variants[name]) for seed in range(SEEDS.value) for name in variants])
    text = "\n".join(table(runs)) + "\n"
    console.say(text.rstrip("\n"))
    write_whole(folder / "table.md", text)


def check():
    """The folder of the runs; raises UsageError for flags that are missing or name nothing."""
    if DATA.value is None or FOLDER.value is None:
        raise UsageError("give --data=DATA and --folder=DIR, where the runs are, or will be")
    if MODEL.value not in KINDS:
        raise UsageError(f"--model={MODEL.value}: choose one of {', '.join(KINDS)}")
    for core in CORES.value:
        if not core.isdecimal():
            raise UsageError(f"--cores={core}: must be numbers of cores, such as 0,1")
    return pathlib.Path(FOLDER.value)


def left_out(name):
    """The settings of a run in which one setting of the model has the paper's value."""
    return [f"model.{name}={getattr(StateSpaceConfig(), name)}"]


def train_all(jobs):
    """One run on each of --cores at a time. jobs: (folder, seed, settings); raises the first UsageError at the end."""
    prefixes: queue.SimpleQueue = queue.SimpleQueue()  # of the cores that are free
    pinned: list[tuple[str, ...]] = [("taskset", "-c", core) for core in CORES.value]
    for prefix in pinned or [()]:
        prefixes.put(prefix)

    def train_one(place, seed, settings):
        prefix = prefixes.get()
        console.say(" ".join([str(place), *prefix]))
        common = [f"seed={seed}", f"train.updates={UPDATES.value}", *SET.value]
        try:
            with open(f"{place}.log", "w") as log:
                train(place, f"{DATA.value},{MODEL.value},cpu_games", [*common, *settings], prefix, log)
        finally:
            prefixes.put(prefix)

    with ThreadPoolExecutor(prefixes.qsize()) as pool:
        for future in [pool.submit(train_one, *job) for job in jobs]:
            future.result()


def table(runs):
    """The lines of the table. runs: folders of the seeds by variant."""
    last = {name: [read_metrics(place)[-1] for place in places] for name, places in runs.items()}
    losses = {name: np.array([row["eval/loss"] for row in rows]) for name, rows in last.items()}
    cells = []
    for name, rows in last.items():
        each = ", ".join(f"{loss:.1f}" for loss in losses[name])
        gain = "" if name == ALL else with_interval(losses[name] - losses[ALL])
        kl = ", ".join(f"{row.get('train/kl', 0):.1f}" for row in rows)
        weight = ", ".join(f"{row.get('train/kl_weight', 1):.2g}" for row in rows)
        cells.append([name, with_interval(losses[name]), each, gain, kl, weight])
    return [
        f"{MODEL.value} on {DATA.value}, {UPDATES.value} updates. Held-out loss in nats a frame (minus the evidence "
        f"lower bound), and what the helper gains: the loss without it above that with all, seed by seed. Means of "
        f"{SEEDS.value} seeds with 95% intervals (Student's t). KL and its weight: of training's last row.",
        "",
        *markdown(["variant", "held-out loss", "seeds", "gain of the helper", "KL", "its weight"], cells),
    ]


def with_interval(values):
    """Mean and 95% interval of [seeds] as text; of one seed the mean alone."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    mean, half = values.mean(), half_interval(values)
    return f"{mean:.1f} ({mean - half:.1f} to {mean + half:.1f})"


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
