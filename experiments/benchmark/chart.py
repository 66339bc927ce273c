"""The benchmark's picture: planners by environments, rollouts by batch, the parts of an update."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from wmjax.report.plots import COLOURS


def draw(rows: Sequence[dict[str, Any]], title: str, file_format: str) -> bytes:
    """Picture of the measured rows as bytes; what was not measured stays out."""
    rows = [row for row in rows if "failed" not in row and "left_out" not in row]
    figure = Figure(figsize=(13, 3.6), layout="tight")
    axes = figure.subplots(1, 3)
    figure.suptitle(title, fontsize=9)
    lines(axes[0], [row for row in rows if row["part"] == "planner"], "envs", "kind", "decisions/s")
    axes[0].set(yscale="linear", ylim=(0, None))
    lines(
        axes[1], [row for row in rows if row["part"] == "rollout" and row["horizon"] == 15], "batch", "made", "states/s"
    )
    pieces = {row["piece"]: row["ms"] for row in rows if "piece" in row}
    bars = pieces or {row["name"]: row["ms"] for row in rows if row["part"] in ("train", "population")}
    axes[2].barh(list(bars), list(bars.values()), color=COLOURS[0])
    axes[2].invert_yaxis()
    axes[2].set(xlabel="ms of one update's parts" if pieces else "ms of an update")
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format=file_format, dpi=150)
    return content.getvalue()


def lines(axes: Any, rows: Sequence[dict[str, Any]], x: str, group: str, y: str) -> None:
    """One line a group, on logarithmic axes."""
    names = list(dict.fromkeys(row[group] for row in rows))
    for name, colour in zip(names, COLOURS, strict=False):
        own = [row for row in rows if row[group] == name]
        axes.plot([row[x] for row in own], [row[y] for row in own], "o-", color=colour, label=name)
    axes.set(xlabel=x, ylabel=y, xscale="log", yscale="log")
    if names:
        axes.legend(frameon=False)
