"""The speed of every part of wmjax, beside the rate of a plain matrix product in the same run.

    python -m experiments.benchmark --preset=paper --only=planner,train --json=speed.json --chart=speed.png

Parts: `planner` decisions, `rollout` imagined states, `train` updates and where their time goes, `replay` sampling and
writing, `actors` environments from pixels, `dream` what Smaller World Models does, `phase` whole cycles of PlaNet's
collecting and training, `simulator` decisions with MuJoCo itself as the model, `games` steps of environments in pure
JAX, `agents` acting and learning of those that query a model. Compilation is timed apart. Other libraries stand beside
where they are installed (`.venv/bin/uv pip install -e .[bench]`), with the same sizes and network. Medians with minimum
and maximum over repetitions; machines are shared and noisy, so compare within one run only.
"""

import json
import pathlib
import sys
from typing import Any

from absl import flags

from experiments.benchmark import actors, agents, chart, dream, games, phase, planner, replay, rollout, simulator, train
from wmjax import console
from wmjax.report import benchmark
from wmjax.run import cli
from wmjax.storage.files import atomic_write
from wmjax.storage.workdir import versions
from wmjax.types import UsageError

PARTS = dict(
    planner=planner,
    rollout=rollout,
    train=train,
    replay=replay,
    actors=actors,
    dream=dream,
    phase=phase,
    simulator=simulator,
    games=games,
    agents=agents,
)
PRESETS = ("quick", "paper")


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_list("only", list(PARTS), f"parts to measure: {', '.join(PARTS)}", flag_values=values)
    flags.DEFINE_string("preset", "quick", "quick: a few minutes on two cores; paper: every size", flag_values=values)
    cli.int_flag(values, "repeats", 5, "timed repetitions of each", 1, 10_000)
    cli.path_flag(values, "json", "file for the numbers")
    cli.path_flag(values, "chart", "picture, .png or .svg")


def main(argv: list[str]) -> None:
    """Measures part after part and prints a table. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    check_flags(options)
    cli.use_jax()
    machine = versions()
    console.say(f"{machine['device']}, {machine['cpu_count']} cores, jax {machine['jax']}, {machine['date']}")
    rows = []
    for part in options.only:
        for work in PARTS[part].works(options.preset):
            row = dict(part=part, name=work.name) | work.tags | benchmark.measure(work, options.repeats)
            rows.append(row)
            console.say(line(row))
            if options.json:  # after every row, so that stopping early loses none
                settings = dict(preset=options.preset, repeats=options.repeats)
                content = dict(machine=machine, settings=settings, rows=rows)
                atomic_write(options.json, json.dumps(content, indent=1) + "\n")
    if options.chart:
        title = (
            f"wmjax on {machine['device']}, {machine['cpu_count']} cores, jax {machine['jax']}, {machine['date'][:10]}"
        )
        atomic_write(options.chart, chart.draw(rows, title, options.chart.rsplit(".")[-1]))


def check_flags(options: Any) -> None:
    """Refuses what cannot be measured or written before anything runs."""
    for name in options.only:
        if name not in PARTS:
            raise UsageError(f"--only={name}: choose from {', '.join(PARTS)}")
    if options.preset not in PRESETS:
        raise UsageError(f"--preset={options.preset}: choose from {', '.join(PRESETS)}")
    if options.chart and not options.chart.endswith((".png", ".svg")):
        raise UsageError(f"--chart={options.chart}: must end in .png or .svg")
    for flag, path in (("json", options.json), ("chart", options.chart)):
        if path and not pathlib.Path(path).parent.is_dir():
            raise UsageError(f"--{flag}={path}: there is no folder {pathlib.Path(path).parent}")


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    figures = [f"{row['part']:8} {row['name']:30} {row['ms']:10.3f} ms ({row['ms_min']:.3f} to {row['ms_max']:.3f})"]
    figures += [f"{row[unit]:,.{0 if row[unit] >= 10 else 2}f} {unit}" for unit in row if unit.endswith("/s")]
    if "share" in row:
        figures.append(f"share {row['share']:.2f} of {row['product_gflops']:,.0f} GFLOP/s")
    figures += [f"{name[:-2]} {row[name]:.2f} s" for name in row if name.endswith("_s") and name != "compile_s"]
    figures += [f"{row['relative_time']:.2f} times ours"] if "relative_time" in row else []
    figures += [f"idle {row['idle']:.2f}"] if "idle" in row else []
    figures += [f"peak {row[benchmark.PEAK]:,.0f} MB"] if benchmark.PEAK in row else []
    return "  ".join([*figures, f"compile {row['compile_s']:.1f} s"])


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
