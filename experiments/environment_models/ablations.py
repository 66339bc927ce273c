"""What each of the four helpers of games brings: an environment model trained with all, and with each one left out.

    python -m experiments.environment_models.ablations --data=data/p --folder=runs/ablations --cores=0,1

Trains every variant with every seed by `python -m experiments.environment_models` in a folder of its own; the same
command resumes what was interrupted. Prints the held-out losses, and writes them as table.md into --folder. What a
run says is in <run>.log. With --cores there are as many runs at a time, each pinned to one core by `taskset`.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import runs
from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from wmjax.envs.check import check_name
from wmjax.models.state_space import KINDS, StateSpaceConfig
from wmjax.report.markup import markdown
from wmjax.report.metrics import read_metrics
from wmjax.report.statistics import with_interval
from wmjax.run import cli, jobs
from wmjax.types import UsageError

# What is left out -> the setting that takes its value of the paper.
HELPERS = dict(
    background="contrast", zero_last_layer="last_layer_scale", small_std="latent_std", kl_annealing="kl_anneal_target"
)
ALL = "all_helpers"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_string("data", None, "a recorded folder, ball or ball:drifting", flag_values=values)
    flags.DEFINE_string("model", "sssm", "kind of environment model", flag_values=values)
    cli.int_flag(values, "updates", 1600, "of every run", 1)
    runs.define_flags(values, "model.jump=3")


def main(argv: list[str]) -> None:
    """Trains what is missing and prints the table once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check(options)
    variants = {ALL: []} | {f"without_{helper}": left_out(name) for helper, name in HELPERS.items()}
    folders = runs.run_folders(folder, variants, options.seeds)
    each = [(folders[name][seed], seed, variants[name]) for seed in range(options.seeds) for name in variants]
    trainings = [training(options, *one) for one in each]
    agents.spec_of(runs.check(trainings, agents.read_settings)[0])  # refuses data that are not there
    runs.train_all(trainings, options.cores)
    runs.publish(folder / "table.md", table(options, folders))


def check(options: Any) -> pathlib.Path:
    """The folder of the runs; raises UsageError for flags that are missing or name nothing."""
    if options.data is None:
        raise UsageError("give --data=DATA, what the models learn, and --folder=DIR, where the runs are, or will be")
    check_name("--model", options.model, KINDS)
    return runs.check_flags(options, {"task": "--data", "model.kind": "--model", "train.updates": "--updates"})


def left_out(name: str) -> list[str]:
    """The settings of a run in which one setting of the model has the paper's value."""
    return [f"model.{name}={getattr(StateSpaceConfig(), name)}"]


def training(options: Any, folder: pathlib.Path, seed: int, settings: Sequence[str]) -> jobs.Job:
    """The Job of one seed of a variant."""
    config = f"{configs.__file__}:{options.data},{options.model},cpu_games"
    common = [f"seed={seed}", f"train.updates={options.updates}", *options.set]
    return jobs.training("experiments.environment_models", folder, config, [*common, *settings])


def table(options: Any, folders: Mapping[str, Sequence[pathlib.Path]]) -> list[str]:
    """The lines of the table. folders: of the seeds, by variant."""
    last = {name: [read_metrics(folder)[-1] for folder in own] for name, own in folders.items()}
    losses = {name: np.array([row["eval/loss"] for row in rows]) for name, rows in last.items()}
    cells = []
    for name, rows in last.items():
        each = ", ".join(f"{loss:.1f}" for loss in losses[name])
        gain = "" if name == ALL else with_interval(losses[name] - losses[ALL], 1)
        kl = ", ".join(f"{row.get('train/kl', 0):.1f}" for row in rows)
        weight = ", ".join(f"{row.get('train/kl_weight', 1):.2g}" for row in rows)
        cells.append([name, with_interval(losses[name], 1), each, gain, kl, weight])
    return [
        f"{options.model} on {options.data}, {options.updates} updates. Held-out loss in nats a frame (minus the "
        f"evidence lower bound), and the gain of a helper: the loss without it less that with all, seed by seed. Means "
        f"of {options.seeds} seeds with 95% intervals (Student's t). KL and its weight: of training's last row.",
        "",
        *markdown(["variant", "held-out loss", "seeds", "gain of the helper", "KL", "its weight"], cells),
    ]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
