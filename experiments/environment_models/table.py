"""Table 1 of Buesing et al. (2018): likelihoods over a frame-wise VAE, and the speed of rollouts.

    python -m experiments.environment_models.table --data=ball --preset=cpu --folder=runs/ball

Trains every model with every seed by `python -m experiments.environment_models` in a folder of its own, or loads what is
there, asks all of them for the same held-out sequences and times their rollouts. Writes table.md, futures.png (Figs. 16
and 17) and curves.png (Fig. 15) into --folder.
"""  # noqa: E501

import dataclasses
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import runs as processes
from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from experiments.environment_models import data as sequences
from experiments.environment_models import predictions
from experiments.environment_models.order_k import without_kept_embeddings
from wmjax import console, imagine
from wmjax.envs.check import check_name
from wmjax.models import state_space
from wmjax.report import benchmark
from wmjax.report.benchmark import Work
from wmjax.report.markup import markdown
from wmjax.report.page import write_comparison
from wmjax.report.statistics import half_interval
from wmjax.report.video import write_film
from wmjax.run import cli, devices, jobs
from wmjax.storage import workdir
from wmjax.types import ActionSpec, Array, EnvSpec, Params, State, UsageError

JUMP, JUMPY = 3, "_jumpy"  # the paper's
BASE = "vae"  # what likelihoods are compared with
KEPT, ANEW = "ar", "ar, embedding anew"  # what speeds are compared with: auto-regressive models
PAPER_SPEC = EnvSpec(jax.ShapeDtypeStruct((200, 160, 3), np.uint8), ActionSpec(18, True, 0, 17), 4)
SHOWN = 2  # futures of each model in the picture


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_string("data", "ball", "ball, ball:drifting or a recorded folder", flag_values=values)
    flags.DEFINE_string("preset", "cpu", "of config.py", flag_values=values)
    flags.DEFINE_list(
        "models", ["vae", "dssm_det", "dssm_vae", "sssm"], "rows of the table; with _jumpy: c = 3", flag_values=values
    )
    processes.define_flags(values, "model.channels=8")
    flags.DEFINE_list("horizons", ["12", "48"], "steps of the environment in the timed rollouts", flag_values=values)
    flags.DEFINE_list("batches", ["1", "16"], "rollouts at once", flag_values=values)
    flags.DEFINE_list(
        "timed", list(state_space.KINDS[:5]) + ["sssm_jumpy"], "models whose rollouts are timed", flag_values=values
    )
    cli.int_flag(values, "repeats", 5, "of every timing", 1, 10_000)


def main(argv: list[str]) -> None:
    """Prints the table once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check(options)
    runs = processes.run_folders(folder, options.models, options.seeds)
    seeds = range(options.seeds)  # all models of a seed first: an unfinished table can be compared
    trainings = [training(options, name, seed, runs[name][seed]) for seed in seeds for name in runs]
    for settings in processes.check(trainings, agents.read_settings)[:1]:  # all learn the same data
        agents.spec_of(settings)  # refuses data that are not there
    processes.train_all(trainings, options.cores)
    cli.use_jax()  # only now: while the runs train, an accelerator's memory is theirs
    sections = [["# Environment models"]]
    if runs:
        sections.append(likelihoods(options, runs, folder))
        console.try_drawing(write_comparison, folder / "curves.png", runs, options.data, "eval/loss")
    if options.timed:
        sections.append(speeds(options))
    processes.publish(folder / "table.md", ["\n\n".join("\n".join(lines) for lines in sections)])


def check(options: Any) -> pathlib.Path:
    """The folder of the runs; raises UsageError for flags that name nothing."""
    chosen, made = {"task": "--data", "model.kind": "--models"}, (processes.SEEDS, "table.md")
    folder = processes.check_flags(options, chosen, made)
    check_name("--preset", options.preset, configs.PRESETS)
    for flag, names in (("models", options.models), ("timed", options.timed)):
        for name in names:
            if kind_of(name) not in state_space.KINDS:
                allowed = ", ".join(state_space.KINDS)
                raise UsageError(f"--{flag}={name}: choose from {allowed}, or one of them with {JUMPY} at its end")
    for flag, numbers in (("horizons", options.horizons), ("batches", options.batches)):
        for number in numbers:
            if not re.fullmatch("[1-9][0-9]{0,3}", number):
                raise UsageError(f"--{flag}={number}: must be whole numbers from 1 to 9999")
    for horizon in options.horizons:
        if any(name.endswith(JUMPY) for name in options.timed) and int(horizon) % JUMP:
            raise UsageError(f"--horizons={horizon}: jumpy models need a multiple of {JUMP}")
    for name in options.models:
        if base_of(name) not in options.models:
            raise UsageError(f"--models: {name} is compared with {base_of(name)}, which is not among them")
    return folder


def kind_of(name: str) -> str:
    """The model's kind: its name without what says that it jumps."""
    return name.removesuffix(JUMPY)


def base_of(name: str) -> str:
    """What a model's likelihood is compared with: the frames of a jumpy model are fewer, so the VAE's are too."""
    return BASE + name[len(kind_of(name)) :]


def training(options: Any, name: str, seed: int, folder: pathlib.Path) -> jobs.Job:
    """The Job of one seed of a model."""
    settings = [f"seed={seed}", *options.set]
    if name.endswith(JUMPY):
        settings += [f"model.jump={JUMP}", "train.predicted=9"]
    config = f"{configs.__file__}:{options.data},{kind_of(name)},{options.preset}"
    return jobs.training("experiments.environment_models", folder, config, settings)


def likelihoods(options: Any, runs: Mapping[str, Sequence[pathlib.Path]], folder: pathlib.Path) -> list[str]:
    """The lines of the table of likelihoods. runs: folders of the seeds by model. Writes futures.png."""
    each = {name: agents.read_settings(workdir.read_config(folders[0])) for name, folders in runs.items()}
    mesh = devices.make_mesh("1")
    data = sequences.load(next(iter(each.values())), mesh)
    spec = data.spec
    found, rows = {}, {}
    for name, folders in runs.items():
        settings = each[name]
        chunks = sequences.held_out(settings, data.test, data.test_images)
        evaluate = predictions.make_evaluate(settings, spec, mesh)
        params = [agents.load(run).params for run in folders]
        keys = [agents.keys_of(seed)[2] for seed in range(len(folders))]  # as in training's own evaluations
        asked = zip(params, keys, strict=True)
        found[name] = np.stack([evaluate(each, key, chunks)["loss"] for each, key in asked])  # [seeds, N]
        chunk, truth = predictions.pictured(settings, chunks)
        if settings.model.jump == 1:
            futures = predictions.make_futures(state_space.make(settings.model, spec)[0], settings, spec)
            rows.setdefault("truth", truth)
            drawn = np.asarray(futures(params[0], keys[0], chunk))[:SHOWN]
            rows |= {f"{name} {i + 1}": images for i, images in enumerate(drawn)}
    if rows:  # jumpy models see other times
        console.try_drawing(write_film, folder / "futures.png", rows, state_space.CONTEXT, 1)
    pixels = spec.obs_shape[0] * spec.obs_shape[1]
    cells = []
    for name, losses in found.items():
        gain = 1e3 * (found[base_of(name)] - losses).mean(axis=1) / pixels  # [seeds]
        spread = interval = ""
        if len(gain) > 1:
            half = half_interval(gain)
            spread, interval = f"{gain.std(ddof=1):.2f}", f"{gain.mean() - half:.2f} to {gain.mean() + half:.2f}"
        each = ", ".join(f"{value:.2f}" for value in gain)
        cells.append([name, f"{gain.mean():.2f}", spread, interval, each, f"{losses.mean():.1f}"])
    return [
        f"Gain of the evidence lower bound over {BASE} (of jumpy models over {BASE}{JUMPY}), in 1e-3 nats a pixel, on "
        f"{losses.shape[1]} held-out sequences of {options.data}; mean over seeds, standard deviation and 95% interval "
        "of the mean (Student's t).",
        "",
        *markdown(["model", "gain", "std", "95%", "seeds", "nats a frame"], cells),
    ]


def speeds(options: Any) -> list[str]:
    """The lines of the table of speeds, at the paper's sizes: every model in turn with the auto-regressive one."""
    device = jax.devices()[0].device_kind
    lines = [
        f"Rollouts on {device}, 200 x 160 x 3, 18 actions, C 64: times as fast as {KEPT} with embeddings kept "
        f"/ as {KEPT} that embeds its K = 3 images anew at every step (frames a second).",
        "",
    ]
    names = list(dict.fromkeys([KEPT, ANEW, *options.timed]))
    cells = {name: [name] for name in names}
    header = ["model"]
    for horizon in map(int, options.horizons):
        for batch in map(int, options.batches):
            header.append(f"{batch} x {horizon}")
            works, found = {name: rollout_work(name, batch, horizon) for name in names}, {}
            for name, work in works.items():
                found[name] = benchmark.measure(dataclasses.replace(work, reference=works[KEPT]), options.repeats)
            for name, row in found.items():
                speed = 1 / row["relative_time"]
                cells[name].append(
                    f"{speed:.1f} / {speed * found[ANEW]['relative_time']:.1f} ({row['frames/s']:,.0f}/s)"
                )
    return [*lines, *markdown(header, list(cells.values()))]


def rollout_work(name: str, batch: int, horizon: int) -> Work:
    """A Work: `batch` rollouts of `horizon` steps of the environment under random actions."""
    jump = JUMP if name.endswith(JUMPY) else 1
    kind = KEPT if name == ANEW else kind_of(name)
    config = state_space.StateSpaceConfig(kind=kind, jump=jump)
    model, learner = state_space.make(config, PAPER_SPEC)
    if name == ANEW:
        model = without_kept_embeddings(model, config.order, PAPER_SPEC)
    params = jax.jit(learner.init)(jax.random.key(0)).params
    size = state_space.model_action_size(config, PAPER_SPEC.action)

    def policy(key: Array, features: Array) -> Array:
        steps = jax.random.randint(key, (batch, jump), 0, size // jump)
        return jax.nn.one_hot(steps, size // jump).reshape(batch, size)

    def rollout(params: Params, key: Array, state: State) -> Array:
        return imagine.rollout(model, params, key, state, policy, horizon // jump)[1].reward

    args = (params, jax.random.key(1), model.initial(params, batch))
    return benchmark.compiled(f"{name}, {batch} x {horizon}", rollout, args, {"frames": batch * horizon})


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
