"""PlaNet's figures, from one command that trains what is missing.

    python -m experiments.planet.figures --preset=cpu --seeds=3 --folder=runs/figures --cores=0,1

Parts, each a picture FOLDER/<part>.png and a table in FOLDER/figures.md: `models` RSSM, SSM and RNN (Fig. 4);
`planning` random shooting and random collection (Fig. 5); `overshooting` RSSM and DRNN with and without latent
overshooting (Fig. 8); `activations` relu and elu (Fig. 9); `open_loop` what RSSM, SSM, RNN and DRNN imagine of the same
test episodes, and their error by step beside copying the last frame (Fig. 10); `simulator` a table alone, of CEM with
the true simulator as the model (Table 1), one episode a seed, as `python -m experiments.planet.simulator` plays it.
A run that diverges is told and left out.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import runs
from experiments.planet import config as configs
from experiments.planet import simulator
from experiments.planet.agent import load, read_settings, spec_of, test_env
from experiments.planet.predictions import CONTEXT, PREDICTED, make_predict
from wmjax import console
from wmjax.envs.check import check_name, check_names
from wmjax.envs.dmc import ACTION_REPEAT
from wmjax.report import plots
from wmjax.report.markup import markdown
from wmjax.report.metrics import read_metrics
from wmjax.report.page import write_comparison
from wmjax.report.statistics import with_interval
from wmjax.report.video import write_film
from wmjax.run import cli, jobs
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import alone, member
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage.files import write_whole
from wmjax.types import Step, UsageError, image_of

OVERSHOOTING = ["model.overshooting_distance=5", "model.overshooting_scale=0.1"]  # ours: the scale as kl_scale in cpu
VARIANTS = dict(
    rssm=[],
    ssm=["model.kind=ssm"],
    rnn=["model.kind=rnn"],
    drnn=["model.kind=drnn"],
    random_shooting=["planner.name=random_shooting"],
    random_collection=["train.collect=random"],
    rssm_overshooting=OVERSHOOTING,
    drnn_overshooting=["model.kind=drnn", *OVERSHOOTING],
    rssm_elu=["model.activation=elu"],
    ssm_elu=["model.kind=ssm", "model.activation=elu"],
)
PARTS = dict(
    models=["rssm", "ssm", "rnn"],
    planning=["rssm", "random_shooting", "random_collection"],
    overshooting=["rssm", "rssm_overshooting", "drnn", "drnn_overshooting"],
    activations=["rssm", "rssm_elu", "ssm", "ssm_elu"],
    open_loop=["rssm", "ssm", "rnn", "drnn"],
    simulator=[],
)
ROWS = 8  # test episodes of which the open loop is measured
SHOWN = 5  # every so many frames


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_list("parts", list(PARTS), f"of {', '.join(PARTS)}", flag_values=values)
    flags.DEFINE_string("task", "cheetah_run", "as in config.py", flag_values=values)
    flags.DEFINE_string("preset", "cpu", f"one of {', '.join(configs.PRESETS)}", flag_values=values)
    cli.int_flag(values, "episodes", 40, "of every run", 1)
    runs.define_flags(values, "env.size=32")


def main(argv: list[str]) -> None:
    """Trains what is missing, draws and prints. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check(options)
    used = [name for name in VARIANTS if any(name in PARTS[part] for part in options.parts)]
    folders = runs.run_folders(folder, used, options.seeds)
    trainings = [training(options, folders, name, seed) for seed in range(options.seeds) for name in used]
    settings = runs.check(trainings, read_settings)
    decisions = spec_of(settings[0]).time_limit if settings else None  # refuses an unknown task
    if "open_loop" in options.parts and decisions is not None:
        check_rows(options.task, decisions + 1)
    diverged = runs.train_or_diverge(trainings, options.cores)
    cli.use_jax()  # only now: while the runs train, an accelerator's memory is theirs
    lines = [
        f"{options.task}, preset {options.preset}, {options.episodes} episodes, {options.seeds} seeds "
        f"{' '.join(options.set)}".rstrip()
        + ". Means over seeds with 95% intervals (Student's t).",
    ]
    for run, ended in diverged.items():
        lines += ["", f"{run.name} diverged and is left out: {ended.last}"]
    whole = {name: [run for run in own if run not in diverged] for name, own in folders.items()}
    for part in options.parts:
        own = {name: whole[name] for name in PARTS[part] if whole[name]}
        if part == "simulator":
            told = simulator.table_of("planet", "mean", [options.task], options.seeds, folder / "simulator")
        elif not own:
            told = ["Every run diverged."]
        else:
            told = open_loop(own, folder) if part == "open_loop" else curves(part, own, folder)
        lines += ["", f"## {part}", "", *told]
    runs.publish(folder / "figures.md", lines)


def check(options: Any) -> pathlib.Path:
    """The folder of the runs; raises UsageError for flags that are missing or name nothing."""
    chosen = {"task": "--task", "train.episodes": "--episodes", "model.kind": "--parts"}
    folder = runs.check_flags(options, chosen, made=(runs.SEEDS, "simulator"))
    check_names("--parts", options.parts, PARTS)
    check_name("--preset", options.preset, configs.PRESETS)
    if "simulator" in options.parts:
        check_name("task of --parts=simulator", options.task, ACTION_REPEAT)
    return folder


def training(options: Any, folders: Mapping[str, Sequence[pathlib.Path]], name: str, seed: int) -> jobs.Job:
    """The Job of one seed of a variant."""
    settings = [f"seed={seed}", f"train.episodes={options.episodes}", *VARIANTS[name], *options.set]
    config = f"{configs.__file__}:{options.task},{options.preset}"
    return jobs.training("experiments.planet", folders[name][seed], config, settings)


def curves(part: str, folders: Mapping[str, Sequence[pathlib.Path]], folder: pathlib.Path) -> list[str]:
    """The lines of a table of evaluations; draws them as <part>.png. folders: of the seeds, by variant."""
    console.try_drawing(write_comparison, folder / f"{part}.png", folders, part)
    rows = {name: [evaluations(run) for run in own] for name, own in folders.items()}
    episodes = sorted(set.intersection(*(set(each) for own in rows.values() for each in own)))
    cells = []
    for name, own in rows.items():
        returns = np.array([[each[episode] for episode in episodes] for each in own])  # [seeds, evaluations]
        last = ", ".join(f"{x:.0f}" for x in returns[:, -1])
        cells.append([name, *(with_interval(x, 0) for x in returns.T), last])
    header = ["", *(f"{episode} episodes" for episode in episodes), "seeds at the end"]
    return [f"![{part}]({part}.png)", "", *markdown(header, cells)]


def evaluations(folder: pathlib.Path) -> dict[int, float]:
    """{episodes: mean return} of a run."""
    rows = [row for row in read_metrics(folder) if "eval/return_mean" in row]
    return {row["episodes"]: row["eval/return_mean"] for row in rows}


def open_loop(folders: Mapping[str, Sequence[pathlib.Path]], folder: pathlib.Path) -> list[str]:
    """The lines of a table of errors by step; draws open_loop.png and open_loop_errors.png.

    All models are asked about the same test episodes, which the first run of the first variant plays.
    """
    steps = test_episodes(next(iter(folders.values()))[0])
    true = image_of(steps.obs).swapaxes(0, 1)  # [ROWS, PREDICTED, X, Y, C]
    imagined = {name: np.stack([imagine(run, steps) for run in own]) for name, own in folders.items()}
    errors = {name: np.stack([pixel_error(each, true) for each in own]) for name, own in imagined.items()}
    errors["copying the last frame"] = pixel_error(true[:, CONTEXT - 1 : CONTEXT], true)[None]
    film = dict(truth=true[0]) | {name: own[0, 0] for name, own in imagined.items()}
    console.try_drawing(write_film, folder / "open_loop.png", film, CONTEXT, SHOWN)
    console.try_drawing(write_errors, folder / "open_loop_errors.png", errors)
    ahead = [1, 5, 10, 20, PREDICTED - CONTEXT]
    cells = [[name, *(with_interval(own[:, step - 1], 4) for step in ahead)] for name, own in errors.items()]
    return [
        "![what is imagined](open_loop.png)",
        "",
        "![errors](open_loop_errors.png)",
        "",
        f"Mean squared error of a pixel in [0, 1] after {CONTEXT} frames seen, over {ROWS} test episodes with "
        "exploration noise.",
        "",
        *markdown(["", *(f"{step} ahead" for step in ahead)], cells),
    ]


def test_episodes(folder: pathlib.Path) -> Step:
    """Beginnings of test episodes that a run plays with exploration noise: Step [PREDICTED, ROWS]."""
    loaded = load(folder)
    env = test_env(loaded, ROWS, 0)
    player = make_player(loaded.agent.actor, ROWS, explore=True)
    steps, _ = play_episodes(env, player, alone(loaded.params), jax.random.key(0)[None], Stopwatch())
    env.close()
    check_rows(loaded.task, len(steps.reward))
    return member(steps, slice(PREDICTED))


def check_rows(task: str, rows: int) -> None:
    """Raises UsageError where a task's episodes are too short for the open loop."""
    if rows < PREDICTED:
        raise UsageError(f"--parts=open_loop needs episodes of {PREDICTED} rows: {task} has {rows}")


def imagine(folder: pathlib.Path, steps: Step) -> np.ndarray:
    """What a run's model imagines of Step [PREDICTED, ROWS] after their first CONTEXT: uint8 [ROWS, PREDICTED, ...]."""
    loaded = load(folder)
    predict: Any = make_predict(loaded.agent, loaded.spec)  # not None: these models have pixels
    rows = [member(steps, (slice(None), slice(row, row + 1))) for row in range(ROWS)]
    return np.stack([predict(loaded.params, jax.random.key(row), each) for row, each in enumerate(rows)])


def pixel_error(images: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean squared error by step after the context, [steps].

    Args: true: uint8 [ROWS, T, X, Y, C]; images: the same, or one for all steps, T = 1.
    """
    images = images[:, CONTEXT:] if images.shape[1] > 1 else images
    return np.square(images / 255.0 - true[:, CONTEXT:] / 255.0).mean(axis=(0, 2, 3, 4))


def write_errors(path: pathlib.Path, errors: Mapping[str, np.ndarray]) -> None:
    """PNG: mean errors by step. errors: [seeds, steps] by name."""
    curves = {name: own.mean(axis=0) for name, own in errors.items()}
    write_whole(path, plots.lines(curves, "steps after the last frame seen", "squared error of a pixel", (0, None)))


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
