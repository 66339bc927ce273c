"""The speed of every part of wmjax, beside the rate of a plain matrix product in the same run.

    python -m experiments.benchmark --preset=paper --only=planner,train --json=speed.json --chart=speed.png
    python -m experiments.benchmark --preset=accelerator --page=accelerator.html

Parts: `planner` decisions, `rollout` imagined states, `train` updates and where their time goes, `video` imagined
images and updates of SV2P, `replay` sampling and writing, `actors` environments from pixels, `dream` what Smaller World
Models does, `phase` whole cycles of PlaNet's collecting and training, `simulator` decisions with MuJoCo itself as the
model, `games` steps of environments in pure JAX, `agents` acting and learning of those that query a model, `profile`
the longest kernels of a decision and an update. Of `--preset=accelerator`, with sizes of its own: `device` checks,
`equality` of losses on CPU and device, `planner`, `train`, `population` several seeds in one program, `dream`,
`rollout`, `learning` a whole loop, `profile`, `memory`. It needs no environment package; with `--dry` it runs every
row tiny and once, on any platform.

Compilation is timed apart. Other libraries stand beside where they are installed (`.venv/bin/uv pip install -e
.[bench]`), with the same sizes and network. Medians with minimum and maximum over repetitions; machines are shared and
noisy, so compare within one run only. A row that fails says why and the rest goes on; rows that no longer fit
`--minutes` are listed as left out. Exit code 0: no row failed; 1: one did; 2: bad input.
"""

import functools
import importlib.util
import json
import pathlib
import sys
import time
from typing import Any

import jax
from absl import flags

from experiments.benchmark import (
    accelerator,
    actors,
    agents,
    device,
    dream,
    equality,
    games,
    learning,
    memory,
    page,
    phase,
    planner,
    population,
    profile,
    replay,
    rollout,
    rows,
    simulator,
    train,
    video,
)
from wmjax import backend, console
from wmjax.report import benchmark
from wmjax.run import cli
from wmjax.storage.files import write_whole
from wmjax.storage.workdir import versions
from wmjax.types import UsageError

PARTS = dict(
    planner=planner,
    rollout=rollout,
    train=train,
    video=video,
    replay=replay,
    actors=actors,
    dream=dream,
    phase=phase,
    simulator=simulator,
    games=games,
    agents=agents,
    profile=profile,
)
ACCELERATOR = dict(device=device, equality=equality, population=population, learning=learning, memory=memory)
ACCELERATOR |= dict(profile=profile, planner=planner, train=train, dream=dream, rollout=rollout)
PARTS_OF = dict(quick=PARTS, paper=PARTS, accelerator={name: ACCELERATOR[name] for name in accelerator.PARTS})


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_list("only", [], "parts to measure; none: all of the preset", flag_values=values)
    presets = "quick: a few minutes on two cores; paper: every size; accelerator: one page about a GPU or TPU"
    flags.DEFINE_string("preset", "quick", presets, flag_values=values)
    flags.DEFINE_bool("dry", False, "of accelerator: every row with tiny sizes, once", flag_values=values)
    cli.minutes_flag(values, f"what no longer begins in them is left out; {accelerator.MINUTES:g} of accelerator")
    cli.int_flag(values, "repeats", 5, "timed repetitions of each", 1, 10_000)
    cli.path_flag(values, "json", "file for the numbers")
    cli.path_flag(values, "chart", "picture, .png or .svg")
    cli.path_flag(values, "page", "page of all rows, .html")


def main(argv: list[str]) -> None:
    """Measures part after part and prints a table. argv: the command line. Raises: SystemExit(1) if a row failed."""
    options = cli.parse_flags(argv, define_flags, __name__)
    parts = check_flags(options)
    cli.use_jax()
    begun, machine = time.monotonic(), versions()
    cores = f"{machine['cpu_count']} cores of {machine['processor']}"
    console.say(f"{machine['device']}, {cores}, jax {machine['jax']}, {machine['date']}")
    minutes, repeats, side = options.minutes, options.repeats, None
    if options.dry:
        repeats, side = 1, accelerator.DRY_SIDE
        jax.config.update("jax_disable_most_optimizations", True)  # it is the compiler that one waits for
    elif options.preset == "accelerator":
        minutes = minutes or accelerator.MINUTES
        if backend.is_cpu():
            console.warn("no accelerator here: full sizes take long on a CPU; --dry runs every row tiny")
    settings = dict(preset=options.preset, dry=options.dry, repeats=repeats, minutes=minutes)
    content: dict[str, Any] = dict(machine=machine, settings=settings, rows=[], seconds=0.0, finished=False)
    measure = functools.partial(benchmark.measure, repeats=repeats, side=side)
    write(options, content, parts)  # what cannot be written is refused before anything is measured
    for row in rows.measured(parts, "dry" if options.dry else options.preset, measure, minutes):
        if options.preset == "accelerator":
            row = accelerator.with_goal(row, content["rows"], options.dry)
        content["rows"].append(row)
        console.say(line(row))
        write(options, content | dict(seconds=time.monotonic() - begun), parts)  # so that stopping early loses none
    write(options, content | dict(seconds=time.monotonic() - begun, finished=True), parts)
    if options.chart:
        draw(options.chart, content)
    console.say(rows.counted(content["rows"]))
    if any("failed" in row for row in content["rows"]):
        raise SystemExit(1)


def check_flags(options: Any) -> dict[str, Any]:
    """The parts to measure, by name. Raises UsageError for what cannot be measured or written, before anything runs."""
    if options.preset not in PARTS_OF:
        raise UsageError(f"--preset={options.preset}: choose from {', '.join(PARTS_OF)}")
    parts = PARTS_OF[options.preset]
    for name in options.only:
        if name not in parts:
            raise UsageError(f"--only={name}: choose from {', '.join(parts)}")
    if options.dry and options.preset != "accelerator":
        raise UsageError(f"--dry: only with --preset=accelerator, not {options.preset}")
    if options.chart and not options.chart.endswith((".png", ".svg")):
        raise UsageError(f"--chart={options.chart}: must end in .png or .svg")
    if options.chart and importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"--chart={options.chart}: needs matplotlib, which is not installed")
    if options.page and not options.page.endswith(".html"):
        raise UsageError(f"--page={options.page}: must end in .html")
    for flag, path in (("json", options.json), ("chart", options.chart), ("page", options.page)):
        if path and not pathlib.Path(path).parent.is_dir():
            raise UsageError(f"--{flag}={path}: there is no folder {pathlib.Path(path).parent}")
    return {name: module for name, module in parts.items() if name in (options.only or parts)}


def write(options: Any, content: dict[str, Any], parts: dict[str, Any]) -> None:
    """The numbers and the page, whole. content: as in the JSON file."""
    if options.json:
        write_whole(pathlib.Path(options.json), json.dumps(content, indent=1) + "\n")
    if options.page:
        write_whole(pathlib.Path(options.page), page.make(content, parts))


def draw(path: str, content: dict[str, Any]) -> None:
    """The chart."""
    from experiments.benchmark import chart  # it needs matplotlib

    machine = content["machine"]
    title = f"wmjax on {machine['device']}, {machine['cpu_count']} cores, jax {machine['jax']}, {machine['date'][:10]}"
    write_whole(pathlib.Path(path), chart.draw(content["rows"], title, path.rsplit(".")[-1]))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if "failed" in row or "left_out" in row or "ms_min" not in row:
        figures = [f"{name} {value}" for name, value in rows.figures(row).items()]
        why = f"{rows.outcome(row)}: {row.get('failed', row.get('left_out'))}" if rows.outcome(row) != "ok" else ""
        return "  ".join(filter(None, [f"{row['part']:8} {row['name']:30}", *figures, why]))
    figures = [f"{row['part']:8} {row['name']:30} {row['ms']:10.3f} ms ({row['ms_min']:.3f} to {row['ms_max']:.3f})"]
    figures += [f"{row[unit]:,.{0 if row[unit] >= 10 else 2}f} {unit}" for unit in row if unit.endswith("/s")]
    if "share" in row:
        figures.append(f"share {row['share']:.2f} of {row['product_gflops']:,.0f} GFLOP/s")
    figures += [f"{name[:-2]} {row[name]:.2f} s" for name in row if name.endswith("_s") and name != "compile_s"]
    figures += [f"{row['relative_time']:.2f} times ours"] if "relative_time" in row else []
    figures += [f"idle {row['idle']:.2f}"] if "idle" in row else []
    figures += [f"peak {row[benchmark.PEAK]:,.0f} MB"] if benchmark.PEAK in row else []
    figures += [accelerator.verdict(row)] if "goal" in row else []
    return "  ".join([*figures, f"compile {row['compile_s']:.1f} s"])


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
