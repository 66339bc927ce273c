"""Figs. 3 and 18 of Buesing et al. (2018): agents that query a model beside those that do not, over seeds.

    python -m experiments.i2a.table --env=minipacman:regular --preset=cpu --model=sssm --folder=runs/i2a --cores=0,1

Records the model's data by --policy, trains the model, then every agent of --agents with every seed, each in a folder
of its own; the same command resumes what was interrupted. --model=simulator asks the environment itself, and needs no
data; it is not for `untrained`, `ltq` and `modulation`. Writes FOLDER/curves.png and FOLDER/table.md: returns at equal
frames, without and with the frames of the model's data counted, and at equal seconds, with ratios to the agent without
a model and to the one that copies its state; and the frames until training's episodes last 100 decisions.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import runs
from experiments.environment_models import config as models
from experiments.environment_models.agent import predicted_steps
from experiments.environment_models.agent import read_settings as read_model_settings
from experiments.i2a import config as configs
from experiments.i2a.agent import BLIND, SIMULATOR, check_actions, read_settings, spec_of
from experiments.presets import tasks
from wmjax import console
from wmjax.envs.check import check_name, check_names
from wmjax.models.state_space import KINDS
from wmjax.report import plots
from wmjax.report.markup import markdown
from wmjax.report.metrics import read_metrics
from wmjax.report.page import write_comparison
from wmjax.report.statistics import with_interval
from wmjax.run import cli, jobs
from wmjax.types import UsageError

DEFINITION = "table.json"
AGENTS = ("model_free", "copy", "untrained", "uniform", "distilled", "ltq")
TOO_DEAR = "ar"  # to ask, as the paper found
MODELS = (SIMULATOR, *(kind for kind in KINDS if kind not in (TOO_DEAR, BLIND)))
RETURN, LENGTH = "collect/return", "collect/episode_length"
BASELINES = ("model_free", "copy")
LONG, NEVER = 100, "not reached"  # decisions of an episode that is survived for a while
SHARDS = 11  # of the recorded data
MODEL_PRESETS = dict(cpu="cpu_grid", cpu_games="cpu_games", paper="paper")  # of the model, for the agents' preset
DATALESS = ("model_free", "untrained")  # agents that need none of the model's data


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_string("env", "minipacman:regular", "as in config.py", flag_values=values)
    flags.DEFINE_string("preset", "cpu", f"one of {', '.join(configs.PRESETS)}", flag_values=values)
    flags.DEFINE_list("agents", list(AGENTS), f"of {', '.join(configs.AGENTS)}", flag_values=values)
    flags.DEFINE_string("model", "sssm", f"that is asked: one of {', '.join(MODELS)}", flag_values=values)
    text = f"of its training: {', '.join(models.PRESETS)}; none: that which goes with --preset"
    flags.DEFINE_string("model_preset", "", text, flag_values=values)
    flags.DEFINE_multi_string("model_set", [], "setting of its training, as model.jump=3", flag_values=values)
    text = f"who plays the model's data: {runs.RANDOM}, or a run's folder"
    flags.DEFINE_string("policy", runs.RANDOM, text, flag_values=values)
    cli.int_flag(values, "data", 100_000, "decisions of the model's data", 1)
    runs.define_flags(values, "agent.horizon=3")


def main(argv: list[str]) -> None:
    """Trains what is missing, draws and prints. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check(options)
    task = tasks(options.env, "atari")
    asks_model = options.model != SIMULATOR and any(name != "model_free" for name in options.agents)
    asked = [model_training(options, folder, name) for name in models_of(options.agents)] if asks_model else []
    folders = runs.run_folders(folder, options.agents, options.seeds)
    each = [(name, seed) for seed in range(options.seeds) for name in options.agents]
    trainings = [training(options, folder, folders[name][seed], name, seed) for name, seed in each]
    # Now, for the agents' turn comes after the model's training.
    runs.check(asked, lambda config: predicted_steps(read_model_settings(config)))
    settings = runs.check(trainings, read_settings)
    spec, _ = spec_of(settings[0])  # all of them play the same environment
    for agent in settings:
        check_actions(agent, spec)
    runs.write_definition(folder / DEFINITION, definition(options))
    if asks_model:
        runs.train_missing([recording(options, folder, task)])
        runs.train_missing(asked, options.cores)
    runs.train_missing(trainings, options.cores)
    curves = {name: [read_curve(run) for run in own] for name, own in folders.items()}
    console.try_drawing(write_comparison, folder / "curves.png", folders, task, RETURN)
    runs.publish(folder / "table.md", lines(options, task, curves, options.data * spec.action_repeat * asks_model))


def check(options: Any) -> pathlib.Path:
    """The folder of the runs; raises UsageError for flags that are missing or name nothing."""
    made = (DEFINITION, "data/shards.json", "model/config.json")  # data and model may be another table's
    folder = runs.check_flags(options, {"task": "--env", "kind": "--agents", "model_run": "--model"}, made)
    check_names("--agents", options.agents, configs.AGENTS)
    check_name("--preset", options.preset, configs.PRESETS)
    check_name("--model", options.model, MODELS)
    runs.policy_folder(options.policy)
    check_name("--model_preset", model_preset(options), models.PRESETS)
    if "modulation" in options.agents and options.model != "sssm":
        raise UsageError(f"--model={options.model}: agent modulation asks an sssm")
    return folder


def model_preset(options: Any) -> str:
    """The preset of the model's training."""
    return options.model_preset or MODEL_PRESETS[options.preset]


def definition(options: Any) -> dict[str, Any]:
    """What every run of the folder is a function of: runs that are done are not started again, and so not checked."""
    names = ("env", "preset", "model", "policy", "data")
    found = {name: getattr(options, name) for name in names} | dict(model_preset=model_preset(options))
    return found | dict(set=sorted(options.set), model_set=sorted(options.model_set))


def models_of(agents: Sequence[str]) -> list[str]:
    """The models that some agents ask: one that is given the actions, and for modulation one that is not."""
    asked = [] if set(agents) <= {"model_free", "modulation"} else ["model"]
    return asked + (["model_without_actions"] if "modulation" in agents else [])


def recording(options: Any, folder: pathlib.Path, task: str) -> jobs.Job:
    """The Job that records the model's data."""
    rows = -(-options.data // (8 * SHARDS))  # of a shard, in each of eight environments
    words = [sys.executable, "-m", "experiments.record", f"--game={task}", f"--policy={options.policy}"]
    words += [f"--steps={options.data}", "--envs=8", f"--rows={rows}", f"--folder={folder / 'data'}"]
    if not task.startswith("atari:"):
        words += [f"--option={word.removeprefix('env.')}" for word in options.set if word.startswith("env.")]
    else:
        env = runs.read_config(training(options, folder, folder, "model_free", 0), __name__).env
        words += [f"--size={env.size[0] - env.crop}x{env.size[1]}", f"--actions={','.join(map(str, env.actions))}"]
    return jobs.Job(folder / "data", words)


def model_training(options: Any, folder: pathlib.Path, name: str) -> jobs.Job:
    """The Job of a model. name: of `models_of`."""
    settings = [] if name == "model" else ["model.sees_actions=False"]
    config = f"{models.__file__}:{folder / 'data'},{options.model},{model_preset(options)}"
    return jobs.training("experiments.environment_models", folder / name, config, [*options.model_set, *settings])


def training(options: Any, folder: pathlib.Path, run_folder: pathlib.Path, name: str, seed: int) -> jobs.Job:
    """The Job of one seed of an agent."""
    asked = SIMULATOR if options.model == SIMULATOR else folder / "".join(models_of([name]))
    settings = [f"seed={seed}", *([] if name == "model_free" else [f"model_run={asked}"]), *options.set]
    return jobs.training(
        "experiments.i2a", run_folder, f"{configs.__file__}:{options.env},{name},{options.preset}", settings
    )


class Curve(NamedTuple):
    """What a run's episodes were like; one number for each line of metrics in which episodes ended.

    Where none did, one line whose returns and lengths are nan.
    """

    frames: np.ndarray
    seconds: np.ndarray  # of training, from its start, without evaluations
    returns: np.ndarray
    lengths: np.ndarray  # decisions


def read_curve(folder: pathlib.Path) -> Curve:
    """The Curve of a run."""
    rows = read_metrics(folder)
    frames, returns = plots.series(rows, RETURN, plots.env_steps(rows))
    worked = [sum(own.values()) - own.get("evaluate", 0.0) for own in map(plots.parts, rows)]
    if not len(frames):
        return Curve(np.array([plots.env_steps(rows)[-1]]), np.array([sum(worked)]), *np.full((2, 1), np.nan))
    seconds, _ = plots.series(rows, RETURN, list(np.cumsum(worked)))
    return Curve(frames, seconds, returns, plots.series(rows, LENGTH, plots.env_steps(rows))[1])


def returns_at(curves: Sequence[Curve], axis: str, point: float) -> np.ndarray:
    """[seeds]: returns at a point of an axis, "frames" or "seconds", between two lines; nan before and beyond all."""
    none = dict(left=np.nan, right=np.nan)
    return np.array([np.interp(point, getattr(curve, axis), curve.returns, **none) for curve in curves])


def lines(options: Any, task: str, curves: dict[str, list[Curve]], data: int) -> list[str]:
    """The lines of table.md. data: frames of the model's data."""
    everyone = [curve for own in curves.values() for curve in own]
    frames = min(curve.frames[-1] for curve in everyone)
    seconds = min(curve.seconds[-1] for curve in everyone)
    points = [(f"{part * frames / 1e6:.2g}M frames", part * frames, 0) for part in (0.25, 0.5)]
    points += [("at the end", frames, 0), ("with the data counted", frames, data)]
    cells = []
    for name, own in curves.items():
        found = {}
        for title, point, counted in points:
            shift = 0 if name in DATALESS else counted
            found[title] = returns_at(own, "frames", point - shift)
        found[f"{seconds:.0f} s"] = returns_at(own, "seconds", seconds)
        cells.append((name, found))
    return [
        f"{task}, preset {options.preset}, model {options.model}, {options.seeds} seeds "
        f"{' '.join([*options.set, *options.model_set])}".rstrip()
        + f". Returns of training's episodes after {frames / 1e6:.2g} million frames, between two lines of metrics, "
        f"and over seeds with 95% intervals (Student's t). The model's data are {data} frames, played by "
        f"{options.policy}; not counted are a trained player's own frames and the seconds of the model's training. "
        "All seeds ask one model.",
        "",
        "![curves](curves.png)",
        "",
        *markdown(["", *cells[0][1]], [[name, *(mean_cell(x, 1) for x in own.values())] for name, own in cells]),
        "",
        *ratios(cells),
        "",
        f"Frames until training's episodes last {LONG} decisions, the model's data counted, seed by seed; and over "
        "those of the better baseline, where no baseline comes so far an upper bound.",
        "",
        *survival(curves, data),
    ]


def ratios(cells: list) -> list[str]:
    """The lines of the second table: the end's returns over those of the baselines, seed by seed, if above 0."""
    by_name = dict(cells)
    rows = []
    for name, own in cells:
        row = [name]
        for title in ("at the end", "with the data counted"):
            for baseline in BASELINES:
                if baseline in by_name:
                    ours, theirs = own[title], by_name[baseline][title]
                    row.append("-" if (np.array([ours, theirs]) <= 0).any() else mean_cell(ours / theirs, 2))
        rows.append(row)
    known = [each for each in BASELINES if each in by_name]
    header = [f"over {each}{counted}" for counted in ("", ", data counted") for each in known]
    return markdown(["", *header], rows)


def mean_cell(values: np.ndarray, digits: int) -> str:
    """The mean of [seeds] with its interval; words where a run has no number there."""
    return "no line there" if np.isnan(values).any() else with_interval(values, digits)


def survival(curves: dict[str, list[Curve]], data: int) -> list[str]:
    """The lines of the third table: how soon episodes last long. data: frames, which all but DATALESS count."""
    shift = {name: 0 if name in DATALESS else data for name in curves}
    reached = {name: [survives(curve) + shift[name] for curve in own] for name, own in curves.items()}
    known = [name for name in BASELINES if name in curves]
    rows = []
    for name, own in reached.items():
        row = [name, ", ".join(f"{x / 1e6:.2f}M" if np.isfinite(x) else NEVER for x in own)]
        if known:
            best = [min(reached[each][seed] for each in known) for seed in range(len(own))]
            ends = [min(curves[each][seed].frames[-1] + shift[each] for each in known) for seed in range(len(own))]
            row.append(", ".join(map(sooner, own, best, ends)))
        rows.append(row)
    over = {1: "over ", 2: "over the better of "}
    return markdown(["", "frames", *([over[len(known)] + " and ".join(known)] if known else [])], rows)


def sooner(own: float, best: float, end: float) -> str:
    """own / best as text, of frames until episodes last, inf if they never did. end: of the baseline's run."""
    if np.isinf(own):
        return NEVER
    return f"under {own / end:.2f}" if np.isinf(best) else f"{own / best:.2f}"


def survives(curve: Curve) -> float:
    """Frames at which episodes first last LONG decisions, inf if they never do."""
    long = np.flatnonzero(curve.lengths >= LONG)
    return float(curve.frames[long[0]]) if len(long) else np.inf


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
