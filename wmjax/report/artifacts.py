"""What a run leaves in its folder beside metrics: results, and what its report shows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wmjax.storage import files

SUMMARY, VIDEOS = "summary.json", "videos"
TABLE, REFERENCES, PICTURES = "table.json", "references.json", "pictures.json"


class Table(NamedTuple):
    """A table of text that a main adds to its report, such as its newest evaluation beside published ones."""

    title: str
    header: Sequence[str]  # of the columns; the first one names the rows
    rows: Sequence[Sequence[str]]  # as long as the header each
    note: str = ""


class Picture(NamedTuple):
    """A kind of pictures that a main leaves in videos/: the report shows the newest one."""

    pattern: str  # of their names, such as codes_*.png
    title: str
    about: str  # what they show
    first: bool = False  # whether the oldest one is shown too


def open_loop_picture(context: int, frames: int) -> Picture:
    """The Picture of strips by `video.write_strip`. context: frames that the model is shown; frames: in all."""
    return Picture(
        "open_loop_*.png",
        "Open-loop prediction",
        f"The model is shown {context} frames, left of the orange marker, and then imagines {frames - context} more "
        "from the actions alone. Rows: what happened, what the model drew, and the absolute difference (black where "
        "they agree). Every fifth frame is shown.",
        first=True,
    )


def write_pictures(workdir: str | Path, pictures: Sequence[Picture]) -> None:
    """Leaves the kinds of pictures of a run in its folder, for `write_report` to show them in this order."""
    content = json.dumps([picture._asdict() for picture in pictures], indent=1)
    files.atomic_write(Path(workdir) / PICTURES, content + "\n")


def write_table(workdir: str | Path, table: Table) -> None:
    """Leaves a table in the folder of a run, in the place of an older one, for `write_report` to show."""
    files.atomic_write(Path(workdir) / TABLE, json.dumps(table._asdict(), indent=1) + "\n")


def write_references(workdir: str | Path, returns: Mapping[str, float]) -> None:
    """Leaves returns to compare a run's own with in its folder, by name: published ones, random play, ..."""
    files.atomic_write(Path(workdir) / REFERENCES, json.dumps(dict(returns), indent=1) + "\n")


def write_summary(workdir: str | Path, summary: dict[str, Any]) -> None:
    """Leaves the results of a run in its folder: summary.json."""
    files.atomic_write(Path(workdir) / SUMMARY, json.dumps(summary, indent=1) + "\n")


def drop_summary(workdir: str | Path) -> None:
    """Removes the results of a run that goes on."""
    (Path(workdir) / SUMMARY).unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What is in a file that a run may not have written yet; {} where there is none, or a damaged one."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
