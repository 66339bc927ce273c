"""Pictures of the study: distributions of rewards, scatter plots, heat maps of predicted against true rewards."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from wmjax.report import plots
from wmjax.storage.files import write_whole

BINS = 40


def figure_of(columns: int, size: tuple[float, float] = (2.6, 2.4), rows: int = 1) -> tuple[Any, list[Any]]:
    """A matplotlib Figure with so many panels side by side, in so many rows, and its axes, row by row."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def write_histograms(path: pathlib.Path, rewards: Mapping[str, np.ndarray]) -> None:
    """PNG: how often rewards occur, logarithmic, a panel for each name. rewards: {name: [N]}."""
    figure, panels = figure_of(len(rewards))
    high = max(1e-9, *(each.max() for each in rewards.values()))
    low = min(0.0, *(each.min() for each in rewards.values()))
    for axes, (name, each) in zip(panels, rewards.items(), strict=True):
        axes.hist(each, bins=np.linspace(low, high, BINS), color=plots.COLOURS[0], log=True)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("reward of a decision")
        axes.set_ylim(0.5, None)
    write_whole(path, plots.png(figure))


def write_scatter(path: pathlib.Path, errors: Mapping[str, float], scores: Mapping[str, float]) -> None:
    """PNG: score against error, a named point for each. errors, scores: {name: number}."""
    figure, (axes,) = figure_of(1, (5, 3.5))
    for name, error in errors.items():
        axes.plot(error, scores[name], "o", color=plots.COLOURS[0])
        axes.annotate(name, (error, scores[name]), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="image loss, median of training", ylabel="score")
    write_whole(path, plots.png(figure))


def write_heat_maps(
    path: pathlib.Path,
    counts: Mapping[str, Mapping[str, np.ndarray]],
    edges: np.ndarray,
    bound: float | None = None,
) -> None:
    """PNG: how often a true reward (across) is predicted as what (up), logarithmic, a panel for each name.

    Args: counts: {set of episodes, a row: {name: [true, predicted]}}; edges: of the bins of both; bound: a line at this
      true reward.
    """
    each = [(title, name, found) for title, own in counts.items() for name, found in own.items()]
    figure, panels = figure_of(len(each) // len(counts), rows=len(counts))
    for axes, (title, name, found) in zip(panels, each, strict=True):
        axes.pcolormesh(edges, edges, np.log10(1 + np.asarray(found).T), cmap="magma")
        axes.plot(edges[[0, -1]], edges[[0, -1]], "--", color="tab:green", linewidth=1)
        if bound is not None:
            axes.axvline(bound, color="white", linestyle=":", linewidth=1)
        axes.set_title(f"{name}, {title}", fontsize=9)
        axes.set_xlabel("true reward")
    panels[0].set_ylabel("predicted reward")
    write_whole(path, plots.png(figure))
