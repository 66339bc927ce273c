"""The benchmark's page: every row of one run in one HTML file, part by part, what failed first."""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from experiments.benchmark import accelerator, rows
from experiments.benchmark.rows import Row
from wmjax.report.markup import figure, folded, page, table, text

DRY = "A dry run: every row with tiny sizes, once. It shows that nothing is missing; its times mean nothing."


def make(content: Mapping[str, Any], parts: Mapping[str, ModuleType]) -> str:
    """The page as HTML. content: as in the JSON file; parts: modules by name, all that were asked for."""
    machine, settings, measured = content["machine"], content["settings"], content["rows"]
    body = [
        f"<h1>{text(title(machine, settings))}</h1>",
        f'<p class="about">{text(about(content))}</p>',
        *([f"<p>{DRY}</p>"] if settings["dry"] else []),
        tiles(measured),
        *faults(measured),
        picture(measured) if content["finished"] else "",
    ]
    for part, module in parts.items():
        body.append(section(part, module, [row for row in measured if row["part"] == part]))
    return page(title(machine, settings), [*body, folded("Versions and settings", {**machine, **settings})])


def title(machine: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What was measured where."""
    kind = "Accelerator report" if settings["preset"] == "accelerator" else f"Benchmark, {settings['preset']}"
    return f"{kind}: {machine['device']}"


def about(content: Mapping[str, Any]) -> str:
    """A line of when, with what, and whether it is over."""
    machine = content["machine"]
    state = "finished" if content["finished"] else "not finished"
    minutes = f"{content['seconds'] / 60:.1f} minutes"
    parts = [machine["date"], f"{machine['devices']} device(s), {machine['cpu_count']} cores", f"jax {machine['jax']}"]
    return " · ".join([*parts, f"{state} after {minutes}", machine["command"]])


def tiles(measured: Sequence[Row]) -> str:
    """Numbers of rows and of goals."""
    asked = [row["reached"] for row in measured if row.get("reached") is not None]
    outcomes = [rows.outcome(row) for row in measured]
    numbers: list[tuple[str, Any]] = [(each, outcomes.count(each)) for each in ("ok", "failed", "left out")]
    numbers += [("goals reached", f"{sum(asked)} of {len(asked)}" if asked else "not on a GPU")]
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in numbers)
    return f'<div class="numbers">{cells}</div>'


def faults(measured: Iterable[Row]) -> list[str]:
    """HTML of what failed and what was left out, nothing where there is none."""
    found = [[row["part"], row["name"], rows.outcome(row), row.get("failed", row.get("left_out"))] for row in measured]
    lines = [[text(cell) for cell in line] for line in found if line[2] != "ok"]
    return [f"<h2>Failed or left out</h2>{table(['part', 'row', 'outcome', 'reason'], lines)}"] if lines else []


def picture(measured: Sequence[Row]) -> str:
    """The chart; a line where the package that draws it is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        return '<p class="small">matplotlib is not installed: no chart.</p>'
    from experiments.benchmark import chart

    svg = chart.draw(measured, "", "svg").decode()
    return figure(svg[svg.index("<svg") :], "Times and rates of the rows below.")


def section(part: str, module: ModuleType, measured: Sequence[Row]) -> str:
    """A part: its heading, what it is, and its rows with a column for every figure that any of them has."""
    what = (module.__doc__ or "").partition("\n")[0]
    head = f'<h2>{text(part)}</h2><p class="about">{text(what)}</p>'
    figures = [rows.figures(row) for row in measured]
    columns = list(dict.fromkeys(name for of_row in figures for name in of_row))
    goals = any("goal" in row for row in measured)
    header = ["", *columns, *(["goal"] if goals else []), "outcome"]
    lines = []
    for row, of_row in zip(measured, figures, strict=True):
        cells = [row["name"], *(of_row.get(name, "") for name in columns)]
        cells += [accelerator.verdict(row)] if goals else []
        why = row.get("failed", row.get("left_out", ""))
        lines.append([text(cell) for cell in [*cells, f"{rows.outcome(row)}{': ' if why else ''}{why}"]])
    return head + (table(header, lines) if lines else "<p>No row yet.</p>")
