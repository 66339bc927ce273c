"""The study's parts without exploration: all designs learn from the same episodes (Tables 1, 2, Figs. 8, 9).

For each seed they learn the episodes that the five designs have collected with that seed, and are tested on the
evaluations of the same runs; those that diverged aside.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.planet import pool as pools
from experiments.planet.offline import PREDICTIONS
from experiments.trade_offs import pictures, tables
from experiments.trade_offs.cells import Cell, training_of
from experiments.trade_offs.tables import correlation_cells, listed, printed
from wmjax.console import try_drawing
from wmjax.report.artifacts import SUMMARY
from wmjax.report.markup import markdown
from wmjax.report.statistics import half_interval, with_interval
from wmjax.run import jobs
from wmjax.storage import workdir
from wmjax.types import UsageError

UPDATES = dict(paper=100_000, cpu=1500, smoke=20)  # not in the paper
PLAYED = dict(paper=100, cpu=10, smoke=2)  # episodes at the end, of which Table 1 takes the 90th percentile
LOOKS = 2  # measurements of a run
LOW = 0.5  # of all rewards: what `optimism` learns from
Results = Mapping[str, Mapping[int, dict[str, Any]]]  # {design: {seed: summary.json of its run}}


def make_cells(part: str, online: Sequence[Cell]) -> list[Cell]:
    """A Cell of a part for each of those that collect, `online`."""
    return [cell._replace(folder=cell.folder.with_name(f"{part}_{cell.folder.name}")) for cell in online]


def make_training(online: Sequence[Cell]) -> Callable[[Cell, str, Sequence[str]], jobs.Job]:
    """A function (cell, preset, settings) -> Job of the offline trainer. online: the Cells that have collected."""

    def training(cell: Cell, preset: str, settings: Sequence[str]) -> jobs.Job:
        pool = pool_of(cell, online)
        settings = [f"evaluation.episodes={PLAYED[preset]}", *settings]
        job = training_of("experiments.planet.offline", cell, preset, settings)
        folders, updates = ",".join(map(str, pool)), UPDATES[preset]
        words = [f"--train={folders}", f"--test={folders}", f"--updates={updates}", f"--every={updates // LOOKS}"]
        if cell.folder.name.startswith("optimism_"):
            words.append(f"--below={bound(pool):.4g}")
        return job._replace(command=[*job.command, *words])

    return training


def pool_of(cell: Cell, online: Sequence[Cell]) -> tuple[pathlib.Path, ...]:
    """Folders of the runs whose episodes a Cell learns. online: the Cells that have collected."""
    return tuple(each.folder for each in online if (each.task, each.seed) == (cell.task, cell.seed))


@functools.cache
def collected(pool: tuple[pathlib.Path, ...]) -> dict[str, np.ndarray]:
    """{digest: rewards of its decisions, float32 [T - 1]} of the episodes of runs; equal episodes are there once."""
    found: dict[str, np.ndarray] = {}
    for folder in pool:
        for name, episode in pools.episodes(str(folder), pools.TRAIN):
            found.setdefault(name, episode.steps.reward[1:, 0])
    return found


@functools.cache
def bound(pool: tuple[pathlib.Path, ...]) -> float:
    """The reward below which `optimism` learns. pool: a tuple of folders of runs.

    Where no reward is below the quantile, as of sparse rewards, the next one above it; of equal rewards all are below.
    """
    rewards = np.concatenate(list(collected(pool).values()))
    middle = np.quantile(rewards, LOW)
    if (rewards < middle).any():
        return float(middle)
    higher = rewards[rewards > middle]
    return float(higher.min() if len(higher) else middle + 1)


def check_pools(cells: Sequence[Cell], online: Sequence[Cell]) -> None:
    """Raises UsageError where runs that are done have learned other episodes than their pools hold; args as above."""
    done = [cell for cell in cells if jobs.state(cell.folder, 1) == "done"]
    now = {cell: pools.digest(collected(pool_of(cell, online))) for cell in done}
    if old := [str(cell.folder) for cell in done if results(cell)["pools"]["train"]["digest"] != now[cell]]:
        why = "learned other episodes than the runs of their seed hold now"
        raise UsageError(f"{', '.join(old)}: {why}; remove what is named, and the same command trains it again")


def results(cell: Cell) -> dict[str, Any]:
    """summary.json of an offline run."""
    return json.loads((cell.folder / SUMMARY).read_text())


def lines(
    part: str,
    cells: Mapping[str, Sequence[Cell]],
    online: Mapping[str, Sequence[Cell]],
    task: str,
    folder: pathlib.Path,
) -> list[str]:
    """The lines of a part. cells, online: {name: [Cell of each seed]} of its runs and of those that collected."""
    found = {name: {cell.seed: results(cell) for cell in own} for name, own in cells.items()}
    head = ["The same episodes for every design, by digest: " + "; ".join(digests(found)) + ".", ""]
    picture = folder / f"{part}_{task}.png"
    try_drawing(heat_maps, picture, cells)
    head += [
        f"![{part}]({picture.name})",
        "",
        "Rewards of windows of what was learned (train) and of evaluation episodes (eval), of the first seed.",
        "",
    ]
    if part == "optimism":
        return head + optimism(found)
    of_online = {name: tables.by_seed(own) for name, own in online.items()}
    return [*head, *scores(found, task), "", *differences(found, of_online, task)]


def digests(found: Results) -> list[str]:
    """The digest of each seed's pool; raises AssertionError where designs have learned from different ones."""
    told = []
    for seed in sorted({seed for runs in found.values() for seed in runs}):
        names = {runs[seed]["pools"]["train"]["digest"] for runs in found.values() if seed in runs}
        assert len(names) == 1, f"designs have learned from different episodes: seed {seed} {names}"
        told.append(f"seed {seed} {names.pop()[:12]}")
    return told


def measured(found: Results, name: str) -> dict[str, np.ndarray]:
    """{design: a measurement of each seed, float64 [seeds]}; nan where there is none, which JSON has as null."""
    return {
        design: np.array([run["newest"][name] for run in runs.values()], np.float64) for design, runs in found.items()
    }


def percentiles(found: Results) -> dict[str, np.ndarray]:
    """{design: the 90th percentile of its returns, of each seed}."""
    return {design: np.array(list(scores_of(runs).values())) for design, runs in found.items()}


def scores_of(runs: Mapping[int, dict[str, Any]]) -> dict[int, float]:
    """{seed: 90th percentile of its returns} of a design."""
    return {seed: run["score"]["percentile_90"] for seed, run in runs.items()}


def scores(found: Results, task: str) -> list[str]:
    """Tables 1 and 2: the 90th percentile of returns, the error of rewards, their correlation, and R beside images."""
    episodes = next(run["score"]["episodes"] for runs in found.values() for run in runs.values())
    returns = percentiles(found)
    errors = measured(found, "eval/reward_error_median")
    rows = [
        [
            design,
            with_interval(returns[design], 0),
            listed(returns[design]),
            printed("offline_scores", design, task),
            with_interval(errors[design], 4),
            printed("reward_errors", design, task),
            with_interval(measured(found, "eval/r2_horizon")[design], 2),
        ]
        for design in found
    ]
    header = ["", f"90th percentile of {episodes} returns", "seeds", "published, of 100"]
    header += ["median reward error", "published", "R2 of the horizon's sum"]
    rho = correlation_cells([(errors[design].mean(), returns[design].mean()) for design in found])
    return [
        *markdown(header, rows),
        "",
        *markdown(
            ["error with score", "rho (95% interval)", "n", "least that differs from 0 at 5%", "published"],
            [["designs' means", *rho, printed("reward_errors", "rho", task)]],
        ),
        "",
        *against_rewards({design: errors_of(runs) for design, runs in found.items()}),
    ]


def errors_of(runs: Mapping[int, dict[str, Any]]) -> dict[int, float]:
    """{seed: median error of rewards} of a design."""
    return {seed: run["newest"]["eval/reward_error_median"] for seed, run in runs.items()}


def against_rewards(errors: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Whether designs with images have lower errors than `r` on the same episodes. errors: {design: {seed: error}}."""
    rows = []
    for design in [name for name in errors if name != "r"]:
        own, of_r = tables.paired(errors[design], errors.get("r", {}))
        ratio = np.log(own / of_r) if len(own) else np.array([np.nan])
        half = half_interval(ratio) if len(ratio) > 1 else np.nan
        low, high = np.exp(ratio.mean() - half), np.exp(ratio.mean() + half)
        rows.append([design, f"{np.exp(ratio.mean()):.2f}", "-" if np.isnan(half) else f"{low:.2f} to {high:.2f}"])
    return markdown(["median error relative to r", "ratio", "95% interval"], rows)


def differences(found: Results, online: Mapping[str, Mapping[int, float]], task: str) -> list[str]:
    """Table 5, below: scores without exploration less those with it, seed by seed. online: {design: {seed: score}}."""
    rows = []
    for design, runs in found.items():
        difference = np.subtract(*tables.paired(scores_of(runs), online.get(design, {})))
        published = printed("differences", design, task)
        rows.append([design, tables.within(difference), listed(difference), published])
    return markdown(["", "offline score less online score", "seeds", "published, without its sign"], rows)


def optimism(found: Results) -> list[str]:
    """Fig. 9 as numbers: what is predicted above what was learned from."""
    off, errors = measured(found, "eval/optimism"), measured(found, "eval/reward_error_median")
    rows = [
        [design, with_interval(off[design], 3), listed(off[design], 3), with_interval(errors[design], 4)]
        for design in found
    ]
    return markdown(["", "predicted less true, above the limit", "seeds", "median reward error"], rows)


def heat_maps(path: pathlib.Path, cells: Mapping[str, Sequence[Cell]]) -> None:
    """Draws the windows of both pools of the first seed that there is. cells: {design: [Cell]}."""
    seed = min(cell.seed for own in cells.values() for cell in own)
    shown = {design: cell.folder for design, own in cells.items() for cell in own if cell.seed == seed}
    counts: dict[str, dict[str, np.ndarray]] = dict(train={}, eval={})
    edges = np.empty(0)
    for design, folder in shown.items():
        with np.load(folder / PREDICTIONS) as arrays:
            edges = arrays["edges"]
            for name, each in counts.items():
                each[design] = arrays[name]
    limit = workdir.read_config(next(iter(shown.values())))["offline"]["below"]
    pictures.write_heat_maps(path, counts, edges, limit)
