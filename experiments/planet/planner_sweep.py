"""Returns against the planner's settings, with the true simulator as the model (PlaNet, Fig. 12).

    python -m experiments.planet.planner_sweep --task=cheetah_run --folder=runs/planner_sweep

Horizon, iterations, candidates and the share of them that are elites, one at a time around the trade-offs study's
planner (12, 10, 128, a tenth), and two grids: candidates by iterations, horizon by share. Episodes are kept as lines of
FOLDER/episodes.jsonl: the same command goes on with what is missing. Writes FOLDER/table.md and FOLDER/sweep.png. The
paper's figure shows returns of 132 to 837 on cheetah_run; its grid stands in the picture alone, so this one is ours.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from experiments.planet.simulator import EPISODES, REPEATS, Setting, of_episodes, play_missing
from experiments.runs import check_folder, publish
from wmjax.envs.check import check_name
from wmjax.envs.dmc import ACTION_REPEAT
from wmjax.planners import CEMConfig
from wmjax.report import plots
from wmjax.report.markup import markdown
from wmjax.report.statistics import with_interval
from wmjax.run import cli
from wmjax.storage.files import write_whole

CENTRE = dict(horizon=12, iterations=10, candidates=128, share=0.1)
SLICES = dict(
    horizon=(4, 6, 8, 10, 12, 16), iterations=(1, 2, 4, 10, 15), candidates=(32, 64, 128, 256, 512),
    share=(0.05, 0.1, 0.2, 0.5),
)  # fmt: skip
GRIDS: dict[str, dict[str, tuple]] = dict(
    candidates_iterations=dict(candidates=(32, 128, 512), iterations=(2, 4, 10)),
    horizon_share=dict(horizon=(6, 8, 12), share=(0.05, 0.1, 0.5)),
)
PAPER = "Fig. 12: 132 to 837"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_string("task", "cheetah_run", "of the control suite", flag_values=values)
    cli.int_flag(values, "seeds", 1, "episodes of each setting, from seed 0", 1, 1000)
    cli.path_flag(values, "folder", "where the episodes are, or will be")


def main(argv: list[str]) -> None:
    """Plays what is missing and writes table and picture. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check_folder(options, [EPISODES])
    check_name("task", options.task, ACTION_REPEAT)
    cli.use_jax()
    seeds = range(options.seeds)
    repeat = REPEATS["trade_offs"][options.task]
    points = all_points()
    rows = play_missing(
        folder, [Setting(options.task, seed, repeat, cem(**point)) for point in points for seed in seeds]
    )
    returns = np.array([row["return"] for row in rows]).reshape(len(points), len(seeds))
    found = {tuple(point.values()): own for point, own in zip(points, returns, strict=True)}
    publish(folder / "table.md", table(options.task, found, rows[0]["threads"]))
    write_whole(folder / "sweep.png", picture(options.task, found))


def cem(horizon: int, iterations: int, candidates: int, share: float) -> CEMConfig:
    """The CEMConfig of one point of the sweep."""
    return CEMConfig(horizon, iterations, candidates, max(1, round(share * candidates)))


def slice_of(name: str) -> list[dict[str, Any]]:
    """The points along one setting: dicts of all four."""
    return [CENTRE | {name: value} for value in SLICES[name]]


def grid_of(name: str) -> list[dict[str, Any]]:
    """The points of one grid, row by row."""
    (setting, rows), (other_setting, columns) = GRIDS[name].items()
    return [CENTRE | {setting: row, other_setting: column} for row in rows for column in columns]


def all_points() -> list[dict[str, Any]]:
    """Every point once, the cheapest first: what is interrupted has most of them."""
    points = [point for name in SLICES for point in slice_of(name)] + [
        point for name in GRIDS for point in grid_of(name)
    ]
    unique = {tuple(point.values()): point for point in points}
    return sorted(unique.values(), key=lambda each: each["horizon"] * each["iterations"] * each["candidates"])


def table(task: str, found: Mapping[tuple, np.ndarray], threads: int) -> list[str]:
    """The lines of the table. found: returns [seeds] by the values of a point."""
    cells = [
        [*point, with_interval(returns, 0), ", ".join(f"{x:.0f}" for x in returns)] for point, returns in found.items()
    ]
    seeds = len(next(iter(found.values())))
    return [
        f"{task} under CEM over the true simulator, action repeat 4. Returns, {of_episodes(seeds)}; "
        f"threads: {threads}. {PAPER if task == 'cheetah_run' else ''}".rstrip(),
        "",
        *markdown(["horizon", "iterations", "candidates", "share of elites", "return", "episodes"], cells),
    ]


def picture(task: str, found: Mapping[tuple, np.ndarray]) -> bytes:
    """PNG: a panel for each slice, with every episode, and a heat map of mean returns for each grid."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(12, 6), layout="constrained")
    figure.suptitle(f"{task}: returns with the true simulator" + (f" ({PAPER})" if task == "cheetah_run" else ""))
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    values = {point: returns.mean() for point, returns in found.items()}
    low, high = min(values.values()), max(values.values())
    for axes, name in zip(above.subplots(1, len(SLICES), sharey=True), SLICES, strict=True):
        points = [tuple(point.values()) for point in slice_of(name)]
        positions = np.arange(len(points))
        for position, point in zip(positions, points, strict=True):
            axes.plot([position] * len(found[point]), found[point], ".", color=plots.COLOURS[1], markersize=4)
        axes.plot(positions, [values[point] for point in points], "o-", color=plots.COLOURS[0], markersize=4)
        axes.set_xticks(positions, [f"{each:g}" for each in SLICES[name]])
        axes.set(xlabel=name, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    above.axes[0].set_ylabel("return")
    for axes, name in zip(below.subplots(1, len(GRIDS)), GRIDS, strict=True):
        (setting, rows), (other_setting, columns) = GRIDS[name].items()
        grid = np.array([values[tuple(point.values())] for point in grid_of(name)]).reshape(len(rows), len(columns))
        axes.imshow(grid, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        for i, j in np.ndindex(grid.shape):
            bright = grid[i, j] > (low + high) / 2
            axes.text(j, i, f"{grid[i, j]:.0f}", ha="center", va="center", color="black" if bright else "white")
        axes.set_xticks(range(len(columns)), [f"{each:g}" for each in columns])
        axes.set_yticks(range(len(rows)), [f"{each:g}" for each in rows])
        axes.set(xlabel=other_setting, ylabel=setting)
    return plots.png(figure)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
