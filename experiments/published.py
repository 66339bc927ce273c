"""Published numbers: CSV files that begin with lines of # that name their source."""

import csv
import functools
import pathlib


@functools.cache
def read(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """{first cell of a row: {name of another column: its number}} of a file; cells that are empty are left out."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    first, *names = lines[0].split(",")
    return {row[first]: {name: float(row[name]) for name in names if row[name]} for row in csv.DictReader(lines)}
