"""The table of games: the last evaluations of many runs beside the paper's Table 2, and their aggregates.

    python -m experiments.smaller_world_models.table --runs=runs/pong,runs/others --out=table.md

A folder of --runs is a run, a population (each member counts as a run), or a folder of such at any depth. Runs of
other experiments are passed over. Prints Markdown, and --out writes the same. Runs are grouped by game and by
config.train.frames; how sure the aggregates are: `wmjax.report.statistics`.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import phases, scores
from wmjax import console
from wmjax.report.markup import markdown
from wmjax.report.metrics import read_metrics
from wmjax.report.statistics import RESAMPLES, aggregates, intervals
from wmjax.run import cli
from wmjax.storage import workdir
from wmjax.storage.files import write_whole
from wmjax.types import UsageError

OWN = ("seed", "population", "task")  # settings in which runs of one table may differ


class Run(NamedTuple):
    """One run as the table needs it."""

    folder: pathlib.Path
    config: dict
    game: str
    frames: int
    score: float | None  # mean over the episodes of the last evaluation; None before the first
    progress: str  # "" of a finished run, else how far the last evaluation was


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.paths_flag(values, "runs", "DIR,DIR,...: runs, populations, or folders of them")
    cli.path_flag(values, "out", "file to write, .md")


def main(argv: list[str]) -> None:
    """Prints the table once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    if not options.runs:
        raise UsageError("give --runs=DIR,DIR,...: folders of runs")
    if options.out is not None and not options.out.endswith(".md"):
        raise UsageError(f"--out={options.out}: must end in .md")
    found = {}  # a run that is named twice counts once
    for folder in map(pathlib.Path, options.runs):
        if not folder.is_dir():
            raise UsageError(f"--runs={folder}: there is no such folder")
        own = find_runs(folder)
        if not own:
            raise UsageError(f"--runs={folder}: no run of this experiment there")
        found |= {run.folder.resolve(): run for run in own}
    text = page(sorted(found.values(), key=lambda run: (run.frames, run.game, run.config["seed"])))
    console.say(text.rstrip("\n"))
    if options.out is not None:
        write_whole(pathlib.Path(options.out), text)


def find_runs(folder: pathlib.Path) -> list[Run]:
    """Every Run of this experiment in a folder, at any depth. Raises UsageError for damaged configs and metrics."""
    own = (folder / workdir.CONFIG).exists()
    inside = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    members = [each for each in inside if (each / workdir.CONFIG).exists()]  # of a population
    if not own or members:
        return [run for each in (members if own else inside) for run in find_runs(each)]
    config = workdir.read_config(folder)
    if not agents.is_own(config):
        return []
    return [read_run(folder, config)]


def read_run(folder: pathlib.Path, config: dict[str, Any]) -> Run:
    """The Run in a folder. config: as in its config.json."""
    train = config["train"]
    rows = [row for row in read_metrics(folder) if row.get("eval/return_mean") is not None]
    score, progress = None, "not evaluated yet"
    if rows:
        done, score = rows[-1]["iterations"], rows[-1]["eval/return_mean"]
        interactions = sum(phases.at(train["interactions"], i) for i in range(done))
        unfinished = f"unfinished: {done} of {train['iterations']} iterations, {interactions:,} interactions"
        progress = unfinished if done < train["iterations"] else ""
    return Run(folder, config, scores.game_of(config["task"]), train["frames"], score, progress)


def page(runs: Sequence[Run]) -> str:
    """All as Markdown. runs: list of Run."""
    lines = ["# Smaller World Models on Atari", ""]
    evaluated = [run for run in runs if run.score is not None]
    for frames in sorted({run.frames for run in evaluated}):
        own = [run for run in evaluated if run.frames == frames]
        games = {}
        for run in own:
            games.setdefault(run.game, []).append(run)
        lines += [f"## {frames} frame{'s' if frames > 1 else ''}", ""]
        lines += markdown(scores.GAMES, [game_row(each) for each in games.values()])
        lines += ["", *remarks(own, games), *aggregate_lines({name: scored(each) for name, each in games.items()})]
    return "\n".join([*lines, "## Runs", "", *map(run_line, runs)]) + "\n"


def run_line(run: Run) -> str:
    """A Run in a line."""
    settings = f"{run.game}, frames {run.frames}, seed {run.config['seed']}"
    score = None if run.score is None else scores.number(run.score)
    return "; ".join(filter(None, [f"* {run.folder}: {settings}", score, run.progress]))


def game_row(runs: Sequence[Run]) -> list[str]:
    """The cells of one game. runs: list of Run with scores."""
    open_runs = sum(bool(run.progress) for run in runs)
    seeds = f"{len(runs)} ({open_runs} unfinished)" if open_runs else str(len(runs))
    return scores.game_row(runs[0].game, scored(runs), seeds)


def scored(runs: Sequence[Run]) -> np.ndarray:
    """Scores of runs, [seeds]."""
    return np.array([run.score for run in runs])


def remarks(runs: Sequence[Run], games: Mapping[str, Sequence[Run]]) -> list[str]:
    """What a reader should know of the numbers of one table, a paragraph each with an empty line after it."""
    flat = [workdir.flatten(run.config) for run in runs]
    names = sorted({name for each in flat for name in each} - set(OWN))
    unequal = [name for name in names if any(each.get(name) != flat[0].get(name) for each in flat)]
    single = [name for name, each in games.items() if len(each) == 1]
    found = [
        "ours: mean and sample standard deviation over seeds of the last evaluations' mean returns. "
        "HNS: human-normalised score, with the humans of Mnih et al. 2015 (as the paper) or of Wang et al. 2016."
    ]
    found += [f"The runs differ in {', '.join(unequal)}."] if unequal else []
    found += [f"One seed, which adds no width to the intervals: {', '.join(single)}."] if single else []
    return [line for each in found for line in (each, "")]


def aggregate_lines(games: Mapping[str, np.ndarray]) -> list[str]:
    """Mean, median and interquartile mean over the games with published numbers, under each table of humans.

    games: {game: scores [seeds]}. The published agents' seeds are not public: of them, mean and median of their means.
    """
    paper = scores.published(scores.PAPER)
    known = [name for name in games if name in paper]
    if not known:
        return ["No aggregates: no game has published numbers.", ""]
    sure = any(len(games[name]) > 1 for name in known)
    brackets = f"; in brackets 95% stratified bootstrap intervals of {RESAMPLES:,} resamples" if sure else ""
    lines = [f"Over the games with published numbers, {len(known)} here{brackets}:", ""]
    for table in scores.HUMANS:
        ours = [scores.normalised(games[name], name)[table] for name in known]
        rows = [["ours", *aggregate_cells(ours, sure)]]
        for agent, column in scores.AGENTS.items():
            means = [scores.normalised(np.array([paper[name][f"{column}_mean"]]), name)[table] for name in known]
            rows.append([agent, *aggregate_cells(means, False)[:2], ""])
        lines += [*markdown([f"HNS, {table}", "mean", "median", "interquartile mean"], rows), ""]
    return lines


def aggregate_cells(games: Sequence[np.ndarray], sure: bool) -> list[str]:
    """Mean, median and interquartile mean as text. games: list of normalised scores [seeds]; sure: with intervals."""
    between = {name: f" ({low:.1%} to {high:.1%})" for name, (low, high) in intervals(games).items()} if sure else {}
    return [f"{value:.1%}{between.get(name, '')}" for name, value in aggregates(games).items()]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
