"""report.html: one page about one run, made from the files of its working folder alone, with everything inside it."""

import base64
import re
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path

from wmjax.report import metrics, plots
from wmjax.report.artifacts import PICTURES, REFERENCES, SUMMARY, TABLE, VIDEOS, Picture, Table, read_json
from wmjax.report.markup import figure, folded, page, section, text
from wmjax.report.progress import duration
from wmjax.storage import files
from wmjax.storage.workdir import flatten, read_config, read_starts
from wmjax.types import UsageError

REPORT = "report.html"
EMBED_BYTES, EMBED_VIDEOS = 8_000_000, 6  # of videos in the page; the newest ones
PLANNED = ("episodes", "iterations", "updates")  # what config.train, or config.offline, says the length of a run in
TITLE_KEYS = ("task", "env", "name")
FIRST_LOSSES = ("train/loss", "train/image_loss", "train/reward_loss", "train/kl")
MOST_CURVES = 24


def write_report(workdir: str | Path) -> Path:
    """Writes report.html of a run, whole or not at all; an almost empty run gives an almost empty page.

    Raises:
        UsageError: the folder holds no run, or its metrics are damaged; the page cannot be written.
    """
    folder = Path(workdir)
    config, rows = read_config(folder), metrics.read_metrics(folder)
    starts = read_starts(folder)
    title = _title(folder, config)
    body = [
        f"<h1>{text(title)}</h1>",
        _about(folder, starts, _state(folder, config, rows)),
        _numbers(rows),
        _returns(rows, read_json(folder / REFERENCES)),
        _videos(folder),
        *(_picture(folder, Picture(**kind)) for kind in read_json(folder / PICTURES)),
        _losses(rows),
        _held_out(rows),
        _times(rows),
        _written_table(folder),
        folded("Config", flatten(config)),
        folded("Results", flatten(read_json(folder / SUMMARY))),
        folded("Versions", starts[-1] if starts else {}),
        _command(starts),
    ]
    return files.write_whole(folder / REPORT, page(title, body))


def write_population_report(workdir: str | Path, members: Sequence[str | Path]) -> Path:
    """Writes report.html of a population: a curve with a confidence band of each task, a line for each member.

    Args:
        workdir: the folder of the whole run.
        members: folders of its agents, inside it.

    Raises:
        UsageError: as `write_report`.
    """
    folder = Path(workdir)
    config, starts = read_config(folder), read_starts(folder)
    rows = [metrics.read_metrics(member) for member in members]
    title = f"{_title(folder, config)}, {len(rows)} members"
    evaluated = all(any(row.get("eval/return_mean") is not None for row in lines) for lines in rows)
    tasks: dict[str, list[plots.Rows]] = {}
    references = {}
    for member, lines in zip(members, rows, strict=True):
        task = _title(Path(member), read_config(member))
        tasks.setdefault(task, []).append(lines)
        references[task] = read_json(Path(member) / REFERENCES)
    curves = [
        figure(plots.population(runs, references[task], task if len(tasks) > 1 else ""))
        for task, runs in tasks.items()
        if evaluated
    ]
    body = [
        f"<h1>{text(title)}</h1>",
        _about(folder, starts, _state(folder, config, rows[0])),
        section("Evaluation", curves),
        _members(folder, members, rows),
        _written_table(folder),
        folded("Config", flatten(config)),
        folded("Versions", starts[-1] if starts else {}),
        _command(starts),
    ]
    return files.write_whole(folder / REPORT, page(title, body))


def write_comparison(
    path: str | Path,
    groups: Mapping[str, Sequence[str | Path]],
    title: str,
    metric: str = "eval/return_mean",
    task: str = "",
) -> Path:
    """Draws a metric against environment steps for groups of runs, or against updates where nothing is played.

    Args:
        path: ends in .png or .svg.
        groups: name of a group -> working folders of its seeds.
        title: of the picture.
        metric: its name in metrics.jsonl.
        task: of runs of several tasks, the one that is drawn; "": the mean over them.

    Raises:
        UsageError: another ending; a folder has no metrics, or another task; the picture cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"{path} must end in .png or .svg")
    rows = {
        name: [metrics.of_its_task(metrics.read_metrics(folder), task) for folder in runs]
        for name, runs in groups.items()
    }
    for name, runs in groups.items():
        for folder, read in zip(runs, rows[name], strict=True):
            if not read:
                raise UsageError(f"{folder} has no {metrics.METRICS} to compare")
    return files.write_whole(path, plots.comparison(rows, title, path.suffix[1:], metric))


def _members(folder: Path, members: Sequence[str | Path], rows: Sequence[plots.Rows]) -> str:
    """A table of the members' newest evaluations, each with a link to its report."""
    cells, best = [], "best"
    for member, lines in zip(members, rows, strict=True):
        path = Path(member).relative_to(folder)
        returns = [row["eval/return_mean"] for row in lines if row.get("eval/return_mean") is not None]
        best = _best_of(returns)
        numbers = f'{returns[-1]:,.1f}</td><td class="n">{max(returns):,.1f}' if returns else "</td><td>"
        cells.append(f'<tr><td><a href="{path}/{REPORT}">{text(path)}</a></td><td class="n">{numbers}</td></tr>')
    head = f"<tr><th>member</th><th>newest evaluation</th><th>{best}</th></tr>"
    return f"<h2>Members</h2><table>{head}{''.join(cells)}</table>"


def _title(folder: Path, config: dict) -> str:
    flat = flatten(config)
    for wanted in TITLE_KEYS:
        for name, value in flat.items():
            if name.split(".")[-1] == wanted and isinstance(value, str):
                return ", ".join([value, *flat.get("train.tasks", ())])  # of an agent that plays several
    return folder.resolve().name


def _state(folder: Path, config: dict, rows: plots.Rows) -> str:
    """How far a run is, in words. Its summary is that of its last end: the run may have gone on since."""
    summary, train = read_json(folder / SUMMARY), config.get("offline", config.get("train", {}))
    planned = {name: train[name] for name in PLANNED if name in train} | summary.get("planned", {})
    if not planned:
        return "finished" if summary.get("finished", summary) else "not finished yet"
    unit, total = next(iter(planned.items()))
    done = next((row[unit] for row in reversed(rows) if unit in row), 0)
    if not summary or summary.get(unit, done) != done:
        return f"{done:,} of {total:,} {unit} so far"
    if summary.get("finished", done >= total):
        return "finished"
    return f"stopped at {done:,} of {total:,} {unit}; the same command goes on"


def _about(folder: Path, starts: list[dict], state: str) -> str:
    parts = [folder.resolve().name, state]
    if starts:
        again = len(starts) - 1
        parts += [f"started {starts[0].get('date', '?')}"] + ([f"resumed {again} times"] if again else [])
        parts.append(str(starts[-1].get("device", "")))
    return f'<p class="about">{text(" · ".join(p for p in parts if p))}</p>'


def _numbers(rows: plots.Rows) -> str:
    """The headline: a tile for each number the run has so far."""
    if not rows:
        return "<p>No metrics yet.</p>"
    _, evals = plots.series(rows, "eval/return_mean", plots.env_steps(rows))
    _, collected = plots.series(rows, "collect/return", plots.env_steps(rows))
    tiles = []
    if len(evals):
        tiles += [("newest evaluation return", f"{evals[-1]:,.1f}"), (_best_of(evals), f"{evals.max():,.1f}")]
    _, losses = plots.series(rows, "eval/loss", plots.env_steps(rows))
    if len(losses):
        tiles += [("newest held-out loss", f"{losses[-1]:,.4g}"), (_best_of(losses), f"{losses.min():,.4g}")]
    if len(collected):
        tiles.append(("newest collected return", f"{collected[-1]:,.1f}"))
    for name, label in (("episodes", "episodes"), ("env_steps", "environment steps"), ("updates", "updates")):
        if rows[-1].get(name) is not None:
            tiles.append((label, f"{rows[-1][name]:,.0f}"))
    worked = sum(sum(own.values()) - own.get("evaluate", 0.0) for own in map(plots.parts, rows))
    if rows[-1].get("env_steps") is not None and worked:
        tiles.append(("environment steps a second", f"{rows[-1]['env_steps'] / worked:,.0f}"))
    tiles.append(("time", duration(plots.minutes(rows)[-1] * 60)))
    return '<div class="numbers">' + "".join(f"<div><b>{b}</b><span>{s}</span></div>" for s, b in tiles) + "</div>"


def _best_of(evaluations: Sized) -> str:
    """The name of the best of evaluations, which is better by chance alone the more there are."""
    return f"best of {len(evaluations)} evaluation{'' if len(evaluations) == 1 else 's'}"


def _returns(rows: plots.Rows, references: dict[str, float]) -> str:
    if not any(row.get(name) is not None for row in rows for name in ("eval/return_mean", "collect/return")):
        return ""
    steps, tasks = plots.env_steps(rows), metrics.tasks_of(rows)
    title = f"mean of {len(tasks)} tasks" if tasks else ""
    axes = [(steps, "environment steps"), (plots.minutes(rows), "minutes")]
    shown = [figure(plots.returns(rows, xs, label, references, title)) for xs, label in axes]
    for task in tasks:
        of_task = metrics.of_task(rows, task)
        shown.append(figure(plots.returns(of_task, steps, "environment steps of all tasks", title=task)))
    return section("Returns", shown)


def _losses(rows: plots.Rows) -> str:
    found = {name for row in rows for name, value in row.items() if name.startswith("train/") and value is not None}
    names = [n for n in FIRST_LOSSES if n in found] + sorted(found - set(FIRST_LOSSES))
    return section("Training", [figure(plots.curve(rows, name)) for name in names[:MOST_CURVES]])


def _held_out(rows: plots.Rows) -> str:
    """What evaluations measured beside returns."""
    found = {name for row in rows for name in row if name.startswith("eval/") and "/return" not in name}
    return section("In evaluation episodes", [figure(plots.curve(rows, name)) for name in sorted(found)])


def _times(rows: plots.Rows) -> str:
    totals: dict[str, float] = {}
    for row in rows:
        for name, seconds in plots.parts(row).items():
            totals[name] = totals.get(name, 0.0) + seconds
    whole = sum(totals.values())
    if not whole:
        return ""
    cells = "".join(
        f'<tr><td>{text(name)}</td><td class="n">{duration(seconds)}</td><td class="n">{seconds / whole:.1%}</td></tr>'
        for name, seconds in sorted(totals.items(), key=lambda item: -item[1])
    )
    table = f"<table><tr><th>part</th><th>time</th><th>share</th></tr>{cells}</table>"
    return section("Where the time goes", [figure(plots.times(rows), "seconds of an iteration"), figure(table)])


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    """By the numbers in their names (eval_0200 is newer than eval_0100), since dates get lost in copies."""
    files = (folder / VIDEOS).glob(pattern) if (folder / VIDEOS).is_dir() else []
    return sorted(files, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name), reverse=True)


def _embedded(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _videos(folder: Path) -> str:
    figures, room = [], EMBED_BYTES
    files = _newest_first(folder, "*.mp4")
    for path in files[:EMBED_VIDEOS]:
        room -= path.stat().st_size
        if room < 0:
            break
        tag = f'<video controls loop muted playsinline src="{_embedded(path, "video/mp4")}"></video>'
        figures.append(figure(tag, text(path.stem.replace("_", " "))))
    more = len(files) - len(figures)
    note = f'<p class="small">{more} more in {VIDEOS}/.</p>' if more else ""
    return section("Videos", figures) + note


def _picture(folder: Path, picture: Picture) -> str:
    """The newest of the pictures of a kind, and the oldest where it is asked for."""
    found = _newest_first(folder, picture.pattern)
    shown = [("newest", found[0])] if found else []
    shown += [("first", found[-1])] if picture.first and len(found) > 1 else []
    figures = []
    for when, path in shown:
        tag = f'<img alt="{text(picture.title)}" src="{_embedded(path, "image/png")}">'
        caption = f"{when}: {text(path.stem.replace('_', ' '))}"
        figures.append(figure(f'<div class="scroll">{tag}</div>', caption, "wide"))
    head = f'<h2>{text(picture.title)}</h2><p class="small">{text(picture.about)}</p>'
    return head + "".join(figures) if figures else ""


def _written_table(folder: Path) -> str:
    """The table of `write_table`, if there is one."""
    written = read_json(folder / TABLE)
    if not written:
        return ""
    table = Table(**written)
    head = "".join(f"<th>{text(cell)}</th>" for cell in table.header)
    rows = [
        f"<tr><td>{text(name)}</td>" + "".join(f'<td class="n">{text(cell)}</td>' for cell in cells) + "</tr>"
        for name, *cells in table.rows
    ]
    below = f'<p class="small">{text(table.note)}</p>' if table.note else ""
    shown = f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>{below}'
    return f"<h2>{text(table.title)}</h2>{figure(shown)}"


def _command(starts: list[dict]) -> str:
    if not starts or not starts[-1].get("command"):
        return ""
    return (
        '<h2>To resume</h2><p class="small">The same command continues this run from its last checkpoint; one '
        "that has ended goes on where more episodes, iterations or updates are asked for.</p>"
        f"<pre>{text(starts[-1]['command'])}</pre>"
    )
