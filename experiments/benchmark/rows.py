"""The rows of the benchmark: each piece of work measured, failed with its reason, or left out with the reason."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from wmjax import doctor
from wmjax.report import benchmark
from wmjax.report.benchmark import Finding, Work

SHARE = 0.9  # of the minutes, after which no row begins: the one under way needs some
Row = dict[str, Any]
WORDS = {
    "told": "found",
    "compile_s": "compile, s",
    "share": "share of the product's rate",
    benchmark.PEAK: "program's memory, MB",
    "gaps": "share without a kernel",
    "kernels": "kernels a call",
    "relative_time": "times ours",
}
HIDDEN = "part name ms_min ms_max repeats gflop product_gflops reference failed left_out goal reached".split()
HIDDEN += "kind envs batch time dtype members horizon made maze agent game piece task threads".split()  # names say so


def measured(
    parts: Mapping[str, ModuleType], preset: str, measure: Callable[[Work], Row], minutes: float | None
) -> Iterator[Row]:
    """Yields the rows of all parts in their order; a row that fails does not end them.

    Args: parts: modules with `works(preset)`; measure: of a Work; minutes: after which what is left is left out.
    """
    begun = time.monotonic()
    for part, module in parts.items():
        for work in works_of(module, preset):
            row = dict(part=part, name=work.name) | (work.tags if isinstance(work, Work) else {})
            if minutes and time.monotonic() - begun > 60 * SHARE * minutes:
                yield row | dict(left_out=f"{SHARE * minutes:g} of --minutes={minutes:g} were gone")
                continue
            yield row | attempt(work.find if isinstance(work, Finding) else functools.partial(measure, work))


def works_of(module: ModuleType, preset: str) -> Iterator[Work | Finding]:
    """The works of a part. Where making one fails, a Finding with that failure takes its place, and the part ends."""
    try:
        yield from module.works(preset)
    except Exception as error:
        why = reason(error)
        yield Finding("all that would follow", lambda: dict(failed=why))


def attempt(find: Callable[[], Row]) -> Row:
    """The figures of find(), or why it failed, in one line."""
    try:
        return find()
    except Exception as error:  # whatever a device, a driver or a package may do
        return dict(failed=reason(error))


def reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return doctor.short(f"{type(error).__name__}: {error}")


def figures(row: Row) -> dict[str, str]:
    """{words: text} of what is known of a row, in its order, for people; tags among them."""
    found = {}
    for key, value in row.items():
        if key not in HIDDEN:
            found[WORDS.get(key, key.replace("_", " "))] = spelled(key, value)
    if "ms_min" in row:
        found["ms"] += f" ({spelled('ms', row['ms_min'])} to {spelled('ms', row['ms_max'])})"
    return found


def spelled(key: str, value: Any) -> str:
    """A figure with as many digits as make sense."""
    if isinstance(value, float) and (key.endswith(("difference", "tolerance")) or key == "error"):
        return f"{value:.1e}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


def outcome(row: Row) -> str:
    """What became of a row: ok, failed, left out."""
    return "failed" if "failed" in row else "left out" if "left_out" in row else "ok"


def counted(rows: Iterable[Row]) -> str:
    """How many rows became what, in words."""
    outcomes = [outcome(row) for row in rows]
    return ", ".join(f"{outcomes.count(each)} {each}" for each in ("ok", "failed", "left out"))
