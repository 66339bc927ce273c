"""The tables and pictures of the study that are read from runs of PlaNet's main.

cells: {name: [Cell of each seed]} of one part and one task.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.planet.scores import published as of_planet
from experiments.published import read
from experiments.trade_offs import pictures
from experiments.trade_offs.cells import FAULTS, OTHER_GRADIENT, Cell
from experiments.trade_offs.cost import FOLDER
from wmjax.console import try_drawing
from wmjax.report.markup import markdown
from wmjax.report.metrics import read_metrics
from wmjax.report.page import write_comparison
from wmjax.report.statistics import pearson, significant_correlation, with_interval

PUBLISHED = FOLDER / "published"
Curve = list[tuple[tuple[float, float, float], float]]  # ((episodes, GFLOP, seconds) spent, score) of evaluations
HORIZON_ERRORS = {  # at the planner's horizon
    "rank correlation with the simulator": "model_error/correlation",
    "regret of the elites": "model_error/regret",
}


def evaluations(cell: Cell) -> list[dict[str, Any]]:
    """The lines of a run's metrics that hold evaluations; the last one's return is its score."""
    return [row for row in read_metrics(cell.folder) if "eval/return_mean" in row]


def score(cell: Cell) -> float:
    """The mean return of the last evaluation."""
    return evaluations(cell)[-1]["eval/return_mean"]


def scores(cells: Mapping[str, Sequence[Cell]]) -> dict[str, np.ndarray]:
    """{name: scores of the seeds, float64 [seeds]}."""
    return {name: np.array([score(cell) for cell in own]) for name, own in cells.items()}


def by_seed(cells: Sequence[Cell]) -> dict[int, float]:
    """{seed: score}."""
    return {cell.seed: score(cell) for cell in cells}


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers by seed as two arrays float64 [seeds], of the seeds that both have."""
    both = [seed for seed in one if seed in other]
    return np.array([one[seed] for seed in both], np.float64), np.array([other[seed] for seed in both], np.float64)


def listed(values: Sequence[float] | np.ndarray, digits: int = 0) -> str:
    """Numbers of the seeds as text."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def printed(name: str, design: str, task: str) -> str:
    """A published number as text; - where there is none."""
    number = read(PUBLISHED / f"{name}.csv").get(design, {}).get(task)
    return "-" if number is None else f"{number:g}"


def returns(cells: Mapping[str, Sequence[Cell]], task: str, picture: pathlib.Path) -> list[str]:
    """The table of scores beside the published ones, and the curves. picture: path of the PNG."""
    folders = {name: [cell.folder for cell in own] for name, own in cells.items()}
    try_drawing(write_comparison, picture, folders, task)
    rows = [
        [name, with_interval(own, 0), listed(own), published_score(name, task)] for name, own in scores(cells).items()
    ]
    return [
        f"![{picture.stem}]({picture.name})",
        "",
        *markdown(["", "return of the last evaluation", "seeds", "published, 1,000 episodes"], rows),
    ]


def published_score(name: str, task: str) -> str:
    """Table 5's online score and its deviation over three runs, as text; - where there is none."""
    mean, deviation = (printed(table, name, task) for table in ("online_scores", "online_deviations"))
    return mean if deviation == "-" else f"{mean} ± {deviation}"


def online(
    cells: Mapping[str, Sequence[Cell]], task: str, folder: pathlib.Path, costs: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Table 5, Figs. 2 and 3, scores at equal compute, correlations of scores. costs: of `cost.measure` by design."""
    lines = ["### Returns (Table 5, Fig. 2)", "", *returns(cells, task, folder / f"online_{task}.png"), ""]
    oracle = of_planet("babaeizadeh_2020").get(task, {}).get("oracle")
    if oracle is not None:
        lines += [f"The true simulator, published: {oracle:g}; ours: `experiments.planet.simulator`.", ""]
    lines += ["### At equal compute", "", *equal_compute(cells, costs), ""]
    lines += ["### Rewards of the collected episodes (Figs. 3, 14)", ""]
    lines += reward_distribution(cells, folder / f"collected_{task}.png")
    lines += ["", "### Model error while planning", "", *model_errors(cells), ""]
    return lines + ["### What ranks the scores", "", *rankings(cells)]


def faults(cells: Mapping[str, Sequence[Cell]]) -> list[str]:
    """The score with a fault less that of the design without it, seed by seed."""
    found, rows = {name: by_seed(own) for name, own in cells.items()}, []
    for name, (design, setting) in [each for each in FAULTS.items() if each[0] in cells]:
        difference = np.subtract(*paired(found[name], found.get(design, {})))
        rows.append([name, setting.removeprefix("model."), within(difference), listed(difference)])
    return markdown(["", "setting", "score less that without it", "seeds"], rows)


def model_errors(cells: Mapping[str, Sequence[Cell]]) -> list[str]:
    """The model errors of the last evaluation at the planner's horizon; - where they were not measured."""
    rows = []
    for name, own in cells.items():
        found = [[measure_of_run(cell, measure) for cell in own] for measure in HORIZON_ERRORS.values()]
        rows.append([name, *(within(each, 2) for each in found)])
    legend = (
        "Random action sequences, the planner's first candidates, ranked by the model and by the true simulator from "
        "states of an episode that the design itself has played. Correlation: 1 is best; regret of the elites: 0 is "
        "best, 1 no better than chance."
    )
    return [legend, "", *markdown(["", *(f"{measure} at the horizon" for measure in HORIZON_ERRORS)], rows)]


def equal_compute(cells: Mapping[str, Sequence[Cell]], costs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Scores at the number of episodes, operations and seconds of training and acting that all designs have spent."""
    spent = {}
    for name, own in cells.items():
        cost = costs[own[0].variant.design]
        spent[name] = [curve(read_metrics(cell.folder), cost) for cell in own]
    least = np.min([curve[-1][0] for own in spent.values() for curve in own], axis=0)  # of each kind of spending
    cells_of_rows = []
    for name, own in spent.items():
        found = [[at_budget(curve, kind, least[kind]) for curve in own] for kind in range(3)]
        cells_of_rows.append([name, *(within(values) for values in found)])
    seconds = "seconds: with the part cost" if np.isnan(least[2]) else f"{least[2]:,.4g} s"
    header = ["", f"{least[0]:.0f} episodes", f"{least[1]:,.4g} GFLOP", seconds]
    return [
        "Return of the last evaluation that is within what the cheapest run has spent on planned decisions and "
        "updates; - where there is none. GFLOP and seconds are their numbers times what one of them costs (Table 6): "
        "the runs' own seconds hold compilation, and none of updates that ran beside the environment.",
        "",
        *markdown(header, cells_of_rows),
    ]


def curve(rows: Sequence[dict[str, Any]], cost: Mapping[str, Any]) -> Curve:
    """[((episodes, GFLOP, seconds) spent, score)] of a run's evaluations; seconds are nan where no cost is timed.

    Args: rows: its metrics; cost: of `cost.measure`. Nothing is planned in the seed episodes, before any update.
    """
    random = max((row["env_steps"] for row in rows if not row["updates"]), default=0)
    points = []
    for row in [row for row in rows if "eval/return_mean" in row]:
        decisions = (row["env_steps"] - random) / cost["action_repeat"]
        spent = [
            decisions * cost.get(f"decision_{unit}", np.nan) + row["updates"] * cost.get(f"update_{unit}", np.nan)
            for unit in ("gflop", "ms")
        ]
        points.append(((row["episodes"], spent[0], spent[1] / 1e3), row["eval/return_mean"]))
    return points


def at_budget(curve: Curve, kind: int, budget: float) -> float:
    """The last score of a curve [((episodes, GFLOP, seconds), score)] within a budget; nan if there is none."""
    found = [value for spent, value in curve if spent[kind] <= budget * (1 + 1e-9)]
    return found[-1] if found else np.nan


def within(values: Sequence[float] | np.ndarray, digits: int = 0) -> str:
    """Numbers of the seeds as a cell; where some have none, how many have."""
    known = np.array([value for value in values if not np.isnan(value)])
    if not len(known):
        return "-"
    return with_interval(known, digits) + (
        "" if len(known) == len(values) else f" [{len(known)} of {len(values)} seeds]"
    )


def reward_distribution(cells: Mapping[str, Sequence[Cell]], picture: pathlib.Path) -> list[str]:
    """The table and the picture of the rewards of single decisions in all collected episodes."""
    found = {name: np.concatenate([collected_rewards(cell.folder) for cell in own]) for name, own in cells.items()}
    try_drawing(pictures.write_histograms, picture, found)
    rows = [
        [name, *(f"{np.percentile(rewards, share):.2f}" for share in (50, 90, 99)), f"{rewards.max():.2f}"]
        for name, rewards in found.items()
    ]
    header = ["", "median", "90th percentile", "99th", "highest"]
    return [f"![{picture.stem}]({picture.name})", "", *markdown(header, rows)]


def collected_rewards(folder: pathlib.Path) -> np.ndarray:
    """Rewards of all decisions of a run's collected episodes, float32 [N]."""
    found = []
    for path in sorted((folder / "replay").glob("*.npz")):
        with np.load(path) as arrays:
            found.append(arrays["reward"][~arrays["is_first"]])
    return np.concatenate(found)


def rankings(cells: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Correlations over designs of the mean score with what a model could be chosen by.

    Not with losses of training: those of different families are not in one unit. Offline errors are, see `offline`.
    """
    means, rows = {name: found.mean() for name, found in scores(cells).items()}, []
    for title, name in HORIZON_ERRORS.items():
        errors = {design: np.mean([measure_of_run(cell, name) for cell in own]) for design, own in cells.items()}
        pairs = [(error, means[design]) for design, error in errors.items() if not np.isnan(error)]
        rows.append([f"{title} at the horizon", *correlation_cells(pairs)])
    return [
        f"Pearson's correlation, over {' '.join(cells)}, of the seeds' mean score with each measure's mean.",
        "",
        *markdown(["", "rho (95% interval)", "designs", "least that differs from 0 at 5%"], rows),
    ]


def correlation_cells(pairs: Sequence[tuple[Any, Any]]) -> list[str]:
    """rho with its interval, the number of pairs and the least significant rho, as text."""
    if len(pairs) < 3:
        return ["-", str(len(pairs)), "-"]
    rho, low, high = pearson(*np.array(pairs).T)
    return [f"{rho:.2f} ({low:.2f} to {high:.2f})", str(len(pairs)), f"{significant_correlation(len(pairs)):.2f}"]


def measure_of_run(cell: Cell, name: str) -> float:
    """A measure of a run: of training the median over its lines, of evaluations the last; nan where there is none.

    A null, as where all candidates earn the same, is none.

    name: the metric, but for the horizon at its end, of which the longest is taken.
    """
    rows = read_metrics(cell.folder)
    found = sorted({key for row in rows for key in row if key.startswith(name)}, key=lambda key: (len(key), key))
    values = [row[found[-1]] for row in rows if found[-1] in row] if found else []
    if not name.startswith("train/"):
        values = values[-1:]
    values = [value for value in values if value is not None]
    return float(np.median(values)) if values else np.nan


def median_losses(cells: Mapping[str, Sequence[Cell]], kind: str) -> dict[str, float]:
    """{name: median over the seeds of a training loss}. kind: image or reward."""
    return {
        name: np.median([measure_of_run(cell, f"train/{kind}_loss") for cell in own]) for name, own in cells.items()
    }


def scaling(cells: Mapping[str, Sequence[Cell]], task: str, folder: pathlib.Path) -> list[str]:
    """Tables 3, 14, 15 and Fig. 11: errors and scores of one design at several sizes."""
    lines = []
    for design in ("ot_or", "lt_lr"):
        own = {name: runs for name, runs in cells.items() if runs[0].variant.design == design}
        errors = {kind: median_losses(own, kind) for kind in ("image", "reward")}
        means = {name: found.mean() for name, found in scores(own).items()}
        rows = [[name, *(f"{errors[kind][name]:.4g}" for kind in errors), f"{means[name]:.0f}"] for name in own]
        rhos = [correlation_cells([(errors[kind][name], means[name]) for name in own]) for kind in errors]
        row = read(PUBLISHED / "scaling.csv").get(task, {})
        published = [f"{row[f'{design}_{kind}']:.2f}" if row else "-" for kind in errors]
        try_drawing(pictures.write_scatter, folder / f"scale_{design}_{task}.png", errors["image"], means)
        lines += [
            f"### {design}",
            "",
            f"![scale](scale_{design}_{task}.png)",
            "",
            *markdown(["", "image loss, median of training", "reward loss", "score"], rows),
            "",
            *markdown(
                ["correlation with the score", "image", "reward"],
                [
                    ["rho (95% interval)", *(each[0] for each in rhos)],
                    ["sizes", *(each[1] for each in rhos)],
                    ["least that differs from 0 at 5%", *(each[2] for each in rhos)],
                    ["published", *published],
                ],
            ),
            "",
        ]
    return lines


def sharing(cells: Mapping[str, Sequence[Cell]], task: str, folder: pathlib.Path) -> list[str]:
    """Fig. 7: the score without the reward's gradient in the representation, less that with it."""
    found, rows = {name: by_seed(own) for name, own in cells.items()}, []
    for name in [name for name in cells if name.endswith(tuple(OTHER_GRADIENT))]:
        design, _, gradient = name.rpartition("_")
        own, default = paired(found[name], found.get(design, {}))
        difference = own - default if gradient == "stopped" else default - own
        rows.append([design, OTHER_GRADIENT[gradient], within(difference), listed(difference)])
    return [
        "Score without the reward's gradient in the representation, less the score with it, seed by seed: above 0 it "
        "should not be shared.",
        "",
        *markdown(["", "default", "not shared less shared", "seeds"], rows),
    ]
