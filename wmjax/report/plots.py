"""Curves of a run as pictures: what `report` puts into its page. matplotlib without windows or global state."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wmjax.report.statistics import half_interval

GREY = "#888888"
COLOURS = ("#3366aa", "#dd7722", "#228855", "#aa3355", "#7755aa", "#998833", "#33aabb", GREY, "#bb5599", "#555555")
SIZE, SMALL = (5.6, 3.1), (4.2, 2.5)  # inches; the page scales them
PANELS = 6  # side by side
BARS = 60  # at most so many bars in the picture of times
LABELS = {
    "eval/return_mean": "evaluation return",
    "collect/return": "return of training's episodes",
    "eval/loss": "held-out loss, nats a step",
}
LOG_RANGE = 50  # a loss that spans a larger factor after its beginning gets a logarithmic axis
SQUASHED = 10  # a loss that spans so many times what it does after its beginning is cut to that
INK, LINE = "#000000", "#e4e4e4"  # of texts and axes, and of grids; in a page they follow its colours

Rows = list[dict[str, Any]]  # lines of metrics.jsonl


def series(rows: Rows, name: str, xs: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(x, value) of the rows that have a number under `name`; xs: one x for each row."""
    pairs = [(x, row[name]) for x, row in zip(xs, rows, strict=True) if row.get(name) is not None]
    return np.array([x for x, _ in pairs], float), np.array([y for _, y in pairs], float)


def env_steps(rows: Rows) -> list[float]:
    """Environment steps of each row, or updates where none are made; its number where it has neither."""
    return [row["env_steps"] if "env_steps" in row else row.get("updates", index) for index, row in enumerate(rows)]


def minutes(rows: Rows) -> list[float]:
    """Minutes of work up to and with each row."""
    return list(np.cumsum([sum(parts(row).values()) for row in rows]) / 60)


def parts(row: dict[str, Any]) -> dict[str, float]:
    """{"env": seconds, ...} of one row's time/*; what time/total, if there, has beyond the others is "other"."""
    times = {name[5:]: value for name, value in row.items() if name.startswith("time/") and value is not None}
    total = times.pop("total", None)
    if total is not None and total > sum(times.values()):
        times["other"] = total - sum(times.values())
    return times


def returns(
    rows: Rows, xs: Sequence[float], x_label: str, references: Mapping[str, float] | None = None, title: str = ""
) -> str:
    """SVG: returns of evaluation (mean, one standard deviation) and of collected episodes against xs.

    Args:
        xs: one for each row, minutes or counts.
        x_label: what they are.
        references: returns that are drawn as thin lines, by name.
        title: of the picture.
    """
    figure, axes = _figure()
    if x_label == "minutes":
        axes.xaxis.set_major_formatter("{x:g}")
        axes.locator_params(axis="x", integer=False)
    x, y = series(rows, "collect/return", xs)
    if len(y):
        axes.plot(x, y, ".", markersize=3, color=COLOURS[1], alpha=0.35)
        axes.plot(x, running_mean(y, 10), color=COLOURS[1], linewidth=1.2, label="collected (mean of 10)")
    x, y = series(rows, "eval/return_mean", xs)
    if len(y):
        std = np.array([row.get("eval/return_std") or 0 for row in rows if row.get("eval/return_mean") is not None])
        axes.fill_between(x, y - std, y + std, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(x, y, "o-", markersize=3, color=COLOURS[0], label="evaluation (mean, std)")
    _draw_references(axes, references or {})
    axes.set(xlabel=x_label, ylabel="return", title=title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best")
    return _svg(figure)


def curve(rows: Rows, name: str) -> str:
    """SVG: one metric of training against updates."""
    figure, axes = _figure(SMALL)
    figure.set_layout_engine("none")  # a page has many of these, and measuring their texts takes long
    figure.subplots_adjust(left=0.15, right=0.96, bottom=0.19, top=0.88)
    x, y = series(rows, name, [row.get("updates", index) for index, row in enumerate(rows)])
    axes.plot(x, y, color=COLOURS[0], linewidth=1.2, marker="o" if len(y) < 3 else None)
    if _is_loss(name):
        _fit_axis(axes)
    axes.set(xlabel="updates", title=name)
    return _svg(figure)


def times(rows: Rows) -> str:
    """SVG: seconds of an iteration by part, stacked; neighbouring iterations share a bar when there are many."""
    rows = [row for row in rows if parts(row)]
    figure, axes = _figure()
    shared = -(-len(rows) // BARS)  # iterations a bar
    groups = [np.arange(start, min(start + shared, len(rows))) for start in range(0, len(rows), shared)]
    names = sorted({name for row in rows for name in parts(row)}, key=lambda n: -sum(parts(r).get(n, 0) for r in rows))
    x = np.array([group[0] + 1 + (shared - 1) / 2 for group in groups])
    bottom = np.zeros(len(groups))
    for index, name in enumerate(names):
        height = np.array([np.mean([parts(rows[i]).get(name, 0) for i in group]) for group in groups])
        axes.bar(x, height, 0.9 * shared, bottom, color=COLOURS[index % len(COLOURS)], label=name)
        bottom += height
    axes.set(xlabel="iteration", ylabel="seconds")
    axes.legend(frameon=False, fontsize=7, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return _svg(figure)


def comparison(groups: dict[str, list[Rows]], title: str, file_format: str, metric: str) -> bytes:
    """A picture of a metric of several groups of runs, as `comparison_in_page`."""
    content = io.BytesIO()
    _comparison(groups, title, metric).savefig(content, format=file_format, dpi=150)
    return content.getvalue()


def comparison_in_page(groups: dict[str, list[Rows]], title: str, metric: str) -> str:
    """SVG: a metric of several groups of runs: mean, band from lowest to highest, thin seed lines.

    Seeds evaluated at different steps are interpolated to each other's steps, over the range that all of them cover.
    """
    return _svg(_comparison(groups, title, metric))


def _comparison(groups: dict[str, list[Rows]], title: str, metric: str) -> Any:
    figure, axes = _figure((7, 4))
    for index, (name, runs) in enumerate(groups.items()):
        colour = COLOURS[index % len(COLOURS)]
        curves = [series(rows, metric, env_steps(rows)) for rows in runs]
        curves = [(x, y) for x, y in curves if len(x)]
        for x, y in curves:
            axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.45)
        if not curves:
            continue
        low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        grid = np.unique(np.concatenate([x for x, _ in curves]))
        grid = grid[(grid >= low) & (grid <= high)]
        values = np.stack([np.interp(grid, x, y) for x, y in curves])  # [seeds, grid]
        axes.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        plural = "" if len(curves) == 1 else "s"
        axes.plot(grid, values.mean(0), color=colour, linewidth=2, label=f"{name} ({len(curves)} seed{plural})")
    played = any("env_steps" in row for runs in groups.values() for rows in runs for row in rows)
    axes.set(xlabel="environment steps" if played else "updates", ylabel=LABELS.get(metric, metric), title=title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    if _is_loss(metric):
        _fit_axis(axes)
    return figure


def panels(
    curves: Mapping[str, Mapping[str, Sequence[float]]], x_label: str, y_label: str, y_limits: tuple[float, float]
) -> bytes:
    """A PNG of small panels with the same axes.

    Args:
        curves: by name of the panel and of the curve, values at 0, 1, 2, ...; the same names in each panel.
        x_label: of all panels.
        y_label: of all panels.
        y_limits: of all panels; what is outside is cut off.
    """
    from matplotlib.figure import Figure

    columns = min(len(curves), PANELS)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(1.8 * columns + 0.6, 1.4 * rows + 0.9), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (title, lines) in zip(grid, curves.items(), strict=False):
        for colour, (name, y) in zip(COLOURS, lines.items(), strict=False):
            axes.plot(y, color=colour, linewidth=1.2, label=name)
        axes.set_title(title, fontsize=8)
        axes.set_ylim(*y_limits)
        axes.grid(color=LINE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7, labelbottom=True)
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    figure.supxlabel(x_label, fontsize=8)
    figure.supylabel(y_label, fontsize=8)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return png(figure)


def lines(curves: Mapping[str, Sequence[float]], x_label: str, y_label: str, y_limits: tuple[Any, Any]) -> bytes:
    """A PNG of curves by name, their values at 1, 2, 3, ...; y_limits: None for what fits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="tight")
    axes = figure.subplots()
    for colour, (name, y) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(range(1, len(y) + 1), y, "o-", markersize=3, color=colour, label=name)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set(xlabel=x_label, ylabel=y_label, ylim=y_limits)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return png(figure)


def png(figure: Any) -> bytes:
    """A matplotlib Figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def population(runs: Sequence[Rows], references: Mapping[str, float], title: str = "") -> str:
    """SVG: evaluation returns of runs that were evaluated together: mean, its 95% confidence interval, a line a run.

    references: as in `returns`.
    """
    figure, axes = _figure()
    curves = [series(rows, "eval/return_mean", env_steps(rows)) for rows in runs]
    x, values = curves[0][0], np.stack([y for _, y in curves])  # [runs, evaluations]
    for run in values:
        axes.plot(x, run, color=COLOURS[0], linewidth=0.6, alpha=0.45)
    mean = values.mean(0)
    if len(values) > 1:
        half = half_interval(values)
        shade = dict(color=COLOURS[0], alpha=0.18, linewidth=0, label="95% of the mean")
        axes.fill_between(x, mean - half, mean + half, **shade)
    axes.plot(x, mean, "o-", markersize=3, color=COLOURS[0], linewidth=2, label=f"mean of {len(values)}")
    _draw_references(axes, references)
    axes.set(xlabel="environment steps", ylabel="evaluation return", title=title)
    axes.legend(frameon=False)
    return _svg(figure)


def _draw_references(axes: Any, references: Mapping[str, float]) -> None:
    """A thin line across at each return, its name at the right end above it."""
    for name, value in references.items():
        axes.axhline(value, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        position = dict(xycoords=axes.get_yaxis_transform(), xytext=(0, 2), textcoords="offset points", fontsize=7)
        axes.annotate(f"{name}: {value:,.4g}", (1, value), ha="right", va="bottom", **position)


def _is_loss(metric: str) -> bool:
    return metric.startswith("train/") or "loss" in metric


def _fit_axis(axes: Any) -> None:
    """The y axis from what comes after the first tenth of each line, where the beginning would squash that.

    Logarithmic where that is wide and everything is positive. A text in the picture says what is left out.
    """
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    late = np.concatenate([y[-(-len(y) // 10) :] if len(y) >= 5 else y for y in lines] or [np.zeros(0)])
    if not len(late):
        return
    least, most = min(y.min() for y in lines if len(y)), max(y.max() for y in lines if len(y))
    low, high = np.percentile(late, (1, 99))
    to, back = (lambda x: x), (lambda x: x)
    if least > 0 and high > LOG_RANGE * low:
        axes.set_yscale("log")
        to, back = np.log, np.exp
    span = to(high) - to(low)
    if not 0 < span * SQUASHED < to(most) - to(least):
        return
    bottom, top = back(to(low) - span / 2), back(to(high) + span / 2)
    axes.set_ylim(bottom, top)
    position = dict(transform=axes.transAxes, ha="right", fontsize=7)
    if most > top:
        axes.text(1, 0.93, f"some points up to {most:,.3g}", **position)
    if least < bottom:
        axes.text(1, 0.03, f"some points down to {least:,.3g}", **position)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to window - 1 values before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _figure(size: tuple[float, float] = SIZE) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # here because it takes half a second, which a start of a run need not wait
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=size, layout="tight")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.title.set_fontsize(10)
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure, axes


def _svg(figure: Any) -> str:
    """The <svg> element alone, to be put into a page; text stays text, numbers are short.

    From the canvas itself: savefig would draw everything twice.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_visible(False)
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace(LINE, "var(--line)")
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg \1width="100%"', text, count=1).replace(
        'height="', 'data-height="', 1
    )
