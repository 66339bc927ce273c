"""The study's parts without exploration: all designs learn from the same episodes (Tables 1, 2, Figs. 8, 9).

For each seed they learn the episodes that the five designs have collected with that seed, and are tested on the
evaluations of the same runs.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.planet.offline import PREDICTIONS
from experiments.trade_offs import pictures, tables
from experiments.trade_offs.cells import MAIN, Cell, training_of
from experiments.trade_offs.tables import collected_rewards, correlation_cells, listed, printed
from wmjax.console import try_drawing
from wmjax.report.artifacts import SUMMARY
from wmjax.report.markup import markdown
from wmjax.report.statistics import half_interval, with_interval
from wmjax.run import jobs
from wmjax.storage import workdir

UPDATES = dict(paper=100_000, cpu=1500, smoke=20)  # not in the paper
PLAYED = dict(paper=100, cpu=10, smoke=2)  # episodes at the end, of which Table 1 takes the 90th percentile
LOOKS = 2  # measurements of a run
LOW = 0.5  # of all rewards: what `optimism` learns from


def make_cells(part: str, online: Sequence[Cell]) -> list[Cell]:
    """A Cell of a part for each of those that collect, `online`."""
    return [cell._replace(folder=cell.folder.with_name(f"{part}_{cell.folder.name}")) for cell in online]


def make_training(online: Sequence[Cell]) -> Callable[[Cell, str, Sequence[str]], jobs.Job]:
    """A function (cell, preset, settings) -> Job of the offline trainer. online: the Cells that have collected."""

    def training(cell: Cell, preset: str, settings: Sequence[str]) -> jobs.Job:
        pool = [each.folder for each in online if (each.task, each.seed) == (cell.task, cell.seed)]
        settings = [f"evaluation.episodes={PLAYED[preset]}", *settings]
        job = training_of("experiments.planet.offline", cell, preset, settings)
        folders, updates = ",".join(map(str, pool)), UPDATES[preset]
        words = [f"--train={folders}", f"--test={folders}", f"--updates={updates}", f"--every={updates // LOOKS}"]
        if cell.folder.name.startswith("optimism_"):
            words.append(f"--below={bound(tuple(pool)):.4g}")
        return job._replace(command=[*job.command, *words])

    return training


@functools.cache
def bound(pool: tuple[pathlib.Path, ...]) -> float:
    """The reward below which `optimism` learns. pool: a tuple of folders of runs.

    Where no reward is below the quantile, as of sparse rewards, the next one above it; of equal rewards all are below.
    """
    rewards = np.concatenate([collected_rewards(folder) for folder in pool])
    middle = np.quantile(rewards, LOW)
    if (rewards < middle).any():
        return float(middle)
    higher = rewards[rewards > middle]
    return float(higher.min() if len(higher) else middle + 1)


def results(cell: Cell) -> dict[str, Any]:
    """summary.json of an offline run."""
    return json.loads((cell.folder / SUMMARY).read_text())


def lines(part: str, online: Mapping[str, Sequence[Cell]], task: str, folder: pathlib.Path) -> list[str]:
    """The lines of a part. online: {name: [Cell of each seed]} of the runs that collected."""
    cells = {name: make_cells(part, online[name]) for name in MAIN}
    found = {name: [results(cell) for cell in own] for name, own in cells.items()}
    head = ["The same episodes for every design, by digest: " + "; ".join(digests(found)) + ".", ""]
    picture = folder / f"{part}_{task}.png"
    try_drawing(heat_maps, picture, cells)
    head += [
        f"![{part}]({picture.name})",
        "",
        "Rewards of windows of what was learned (train) and of evaluation episodes (eval), seed 0.",
        "",
    ]
    if part == "optimism":
        return head + optimism(found)
    return [*head, *scores(found, task), "", *differences(found, tables.scores(online), task)]


def digests(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """The digest of each seed's pool; raises AssertionError where designs have learned from different ones."""
    each = zip(*found.values(), strict=True)
    sets = [{run["pools"]["train"]["digest"] for run in runs} for runs in each]
    assert all(len(names) == 1 for names in sets), f"designs have learned from different episodes: {sets}"
    return [f"seed {seed} {next(iter(names))[:12]}" for seed, names in enumerate(sets)]


def measured(found: Mapping[str, Sequence[dict[str, Any]]], name: str) -> dict[str, np.ndarray]:
    """{design: a measurement of each seed, float64 [seeds]}; nan where there is none, which JSON has as null."""
    return {design: np.array([run["newest"][name] for run in runs], np.float64) for design, runs in found.items()}


def percentiles(found: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, np.ndarray]:
    """{design: the 90th percentile of its returns, of each seed}."""
    return {design: np.array([run["score"]["percentile_90"] for run in runs]) for design, runs in found.items()}


def scores(found: Mapping[str, Sequence[dict[str, Any]]], task: str) -> list[str]:
    """Tables 1 and 2: the 90th percentile of returns, the error of rewards, their correlation, and R beside images."""
    episodes = next(iter(found.values()))[0]["score"]["episodes"]
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
        *against_rewards(errors),
    ]


def against_rewards(errors: Mapping[str, np.ndarray]) -> list[str]:
    """Whether designs with images have lower errors than `r` on the same episodes, seed by seed."""
    rows = []
    for design in [name for name in errors if name != "r"]:
        ratio = np.log(errors[design] / errors["r"])
        half = half_interval(ratio) if len(ratio) > 1 else np.nan
        low, high = np.exp(ratio.mean() - half), np.exp(ratio.mean() + half)
        rows.append([design, f"{np.exp(ratio.mean()):.2f}", "-" if np.isnan(half) else f"{low:.2f} to {high:.2f}"])
    return markdown(["median error relative to r", "ratio", "95% interval"], rows)


def differences(
    found: Mapping[str, Sequence[dict[str, Any]]], online: Mapping[str, np.ndarray], task: str
) -> list[str]:
    """Table 5, below: the score without exploration less that with it, seed by seed. online: scores by design."""
    rows = []
    for design, returns in percentiles(found).items():
        difference = returns - online[design]
        published = printed("differences", design, task)
        rows.append([design, with_interval(difference, 0), listed(difference), published])
    return markdown(["", "offline score less online score", "seeds", "published, without its sign"], rows)


def optimism(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Fig. 9 as numbers: what is predicted above what was learned from."""
    off, errors = measured(found, "eval/optimism"), measured(found, "eval/reward_error_median")
    rows = [
        [design, with_interval(off[design], 3), listed(off[design], 3), with_interval(errors[design], 4)]
        for design in found
    ]
    return markdown(["", "predicted less true, above the limit", "seeds", "median reward error"], rows)


def heat_maps(path: pathlib.Path, cells: Mapping[str, Sequence[Cell]]) -> None:
    """Draws the first seed's windows of both pools. cells: {design: [Cell]}."""
    counts: dict[str, dict[str, np.ndarray]] = dict(train={}, eval={})
    edges = np.empty(0)
    for design, own in cells.items():
        with np.load(own[0].folder / PREDICTIONS) as arrays:
            edges = arrays["edges"]
            for name, each in counts.items():
                each[design] = arrays[name]
    limit = workdir.read_config(next(iter(cells.values()))[0].folder)["offline"]["below"]
    pictures.write_heat_maps(path, counts, edges, limit)
