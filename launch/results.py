"""What a sweep has come to, read from the folders of its runs: a table, a CSV file and a page."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from launch.grid import SEED, TASK, Cell
from wmjax.report import plots
from wmjax.report.markup import figure, markdown, page, section, table, text
from wmjax.report.metrics import read_metrics
from wmjax.report.page import REPORT
from wmjax.report.statistics import with_interval
from wmjax.run import jobs
from wmjax.storage.files import write_whole

METRICS = ("eval/return_mean", "eval/loss")  # a sweep is compared by the first one that it has
COLUMNS = ("env_steps", "updates", "eval/return_mean", "eval/return_std", "eval/loss")  # of the newest evaluation
CSV = "sweep.csv"


class Run(NamedTuple):
    """A job of a sweep: one cell, or several that differ in their seeds alone."""

    job: jobs.Job
    cells: dict[str, Cell]  # by name
    folders: dict[str, Path]  # where the metrics of each cell are, by name


class Result(NamedTuple):
    """What is known of a cell."""

    name: str
    cell: Cell
    folder: Path
    state: str  # of its run, as of `jobs.state`
    ended: jobs.Ended | None
    rows: list[dict[str, Any]]  # of its metrics

    def newest(self) -> dict[str, Any]:
        """The row of the newest evaluation; {} before the first."""
        evaluated = [row for row in self.rows if any(row.get(name) is not None for name in METRICS)]
        return evaluated[-1] if evaluated else {}


def read(runs: Sequence[Run], axes: Mapping[str, list[str]], tries: int) -> list[Result]:
    """The results of all cells, in the order of the axes' values."""
    found = []
    for run in runs:
        state, ended = jobs.state(run.job.folder, tries), jobs.read_ended(run.job.folder)
        for name, cell in run.cells.items():
            run_folder = run.folders[name]
            found.append(Result(name, cell, run_folder, state, ended, read_metrics(run_folder)))
    return sorted(found, key=lambda each: [axes[key].index(value) for key, value in each.cell.items()])


def status(results: Sequence[Result]) -> list[str]:
    """The lines of --status: a table of the cells, why some failed, and how many are in which state."""
    metric = metric_of(results)
    lines = markdown(["cell", "state", "tries", "steps", metric], [line(each, metric) for each in results])
    for each in results:
        if each.state in ("failed", "again") and each.ended:
            lines.append(f"{each.name}: exit code {each.ended.code}: {each.ended.last}")
    return [*lines, counted(results)]


def counted(results: Sequence[Result]) -> str:
    """How many cells are in which state, in words."""
    states = Counter(each.state for each in results)
    return f"{len(results)} cells: {', '.join(f'{count} {state}' for state, count in states.items())}"


def line(result: Result, metric: str) -> list[Any]:
    """A row of the table of cells."""
    newest = result.newest()
    value = newest.get(metric)
    steps = newest.get("env_steps", newest.get("updates", ""))
    tries = result.ended.tries if result.ended else 0
    return [result.name, result.state, tries or "", steps, "" if value is None else f"{value:.4g}"]


def metric_of(results: Sequence[Result]) -> str:
    """The first of METRICS that a cell has."""
    return next((name for name in METRICS for each in results if each.newest().get(name) is not None), METRICS[0])


def as_csv(results: Sequence[Result]) -> str:
    """The cells as CSV: name, values, state and the newest evaluation."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    keys = list(results[0].cell)
    writer.writerow(["cell", *keys, "state", *COLUMNS])
    for each in results:
        newest = each.newest()
        values = [each.cell[key] for key in keys]
        writer.writerow([each.name, *values, each.state, *(newest.get(name, "") for name in COLUMNS)])
    return content.getvalue()


def write_report(folder: Path, results: Sequence[Result]) -> Path:
    """Writes report.html and sweep.csv of a sweep. Raises UsageError where one cannot be written."""
    write_whole(folder / CSV, as_csv(results))
    metric, title = metric_of(results), f"Sweep {folder.name}"
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="about">{text(counted(results))} · <a href="{CSV}">{CSV}</a></p>',
        section("Curves", [figure(plots.comparison_in_page(*each, metric)) for each in curves(results)]),
        f"<h2>Means over seeds</h2>{table(['', 'cells', metric], means(results, metric))}",
        f"<h2>Cells</h2>{cells_table(folder, results, metric)}",
    ]
    return write_whole(folder / REPORT, page(title, body))


def group_of(cell: Cell) -> str:
    """What a cell shares with those that differ from it in their seeds alone, in words; the task aside."""
    return ", ".join(f"{key} {value}" for key, value in cell.items() if key not in (SEED, TASK))


def grouped(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """{(task, group): its results}."""
    found: dict[tuple[str, str], list[Result]] = {}
    for each in results:
        found.setdefault((each.cell.get(TASK, ""), group_of(each.cell)), []).append(each)
    return found


def curves(results: Sequence[Result]) -> list[tuple[dict[str, list[plots.Rows]], str]]:
    """(metrics of each group, title) of every picture: one for each task."""
    pictures: dict[str, dict[str, list[plots.Rows]]] = {}
    for (task, group), own in grouped(results).items():
        rows = [each.rows for each in own if each.newest()]
        if rows:
            pictures.setdefault(task, {})[group or "all"] = rows
    return [(groups, task) for task, groups in pictures.items()]


def means(results: Sequence[Result], metric: str) -> list[list[str]]:
    """[group, cells evaluated, mean of their newest evaluations with its 95% interval] of every group."""
    lines = []
    for (task, group), own in grouped(results).items():
        values = [each.newest()[metric] for each in own if each.newest().get(metric) is not None]
        mean = with_interval(np.array(values), 2) if values else ""
        lines.append([", ".join(filter(None, [task, group])) or "all", f"{len(values)} of {len(own)}", mean])
    return lines


def cells_table(folder: Path, results: Sequence[Result], metric: str) -> str:
    """HTML: the cells, each with a link to its report where there is one, and how it ended."""
    lines = []
    for each in results:
        name, *cells = line(each, metric)
        report = each.folder / REPORT
        link = f'<a href="{text(report.relative_to(folder))}">{text(name)}</a>' if report.exists() else text(name)
        last = each.ended.last if each.ended and each.ended.code else ""
        lines.append([link, *(text(cell) for cell in cells), text(last)])
    return table(["cell", "state", "tries", "steps", metric, "last line"], lines)
