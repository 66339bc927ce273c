"""The speed of every part of wmjax, beside the rate of a plain matrix product in the same run.

    python -m experiments.benchmark --preset=paper --only=planner,train --json=speed.json --chart=speed.png

Parts: `planner` decisions, `rollout` imagined states, `train` updates and where their time goes, `replay` sampling and
writing, `actors` environments from pixels, `dream` what Smaller World Models does, `phase` whole cycles of PlaNet's
collecting and training. Compilation is timed apart.
Other libraries stand beside where they are installed (`pip install wmjax[bench]`), with the same sizes and network.
Medians with minimum and maximum over repetitions; machines are shared and noisy, so compare within one run only.
"""

import json
import pathlib
import sys

from absl import flags

from experiments.benchmark import actors, chart, dream, phase, planner, replay, rollout, train
from wmjax import console
from wmjax.report import benchmark
from wmjax.run import cli
from wmjax.storage.files import atomic_write
from wmjax.storage.workdir import versions
from wmjax.types import UsageError

PARTS = dict(planner=planner, rollout=rollout, train=train, replay=replay, actors=actors, dream=dream, phase=phase)
PRESETS = ("quick", "paper")

ONLY = flags.DEFINE_list("only", list(PARTS), f"parts to measure: {', '.join(PARTS)}")
PRESET = flags.DEFINE_string("preset", "quick", "quick: a few minutes on two cores; paper: every size")
REPEATS = flags.DEFINE_integer("repeats", 5, "timed repetitions of each", lower_bound=1, upper_bound=10_000)
JSON = cli.path_flag("json", "file for the numbers")
CHART = cli.path_flag("chart", "picture, .png or .svg")


def main(argv):
    """Measures part after part and prints a table. argv: the command line."""
    cli.parse_flags(argv, __name__)
    check_flags()
    cli.use_jax()
    machine = versions()
    console.say(f"{machine['device']}, {machine['cpu_count']} cores, jax {machine['jax']}, {machine['date']}")
    rows = []
    for part in ONLY.value:
        for work in PARTS[part].works(PRESET.value):
            row = dict(part=part, name=work.name) | work.tags | benchmark.measure(work, REPEATS.value)
            rows.append(row)
            console.say(line(row))
            if JSON.value:  # after every row, so that stopping early loses none
                settings = dict(preset=PRESET.value, repeats=REPEATS.value)
                content = dict(machine=machine, settings=settings, rows=rows)
                atomic_write(JSON.value, json.dumps(content, indent=1) + "\n")
    if CHART.value:
        title = (
            f"wmjax on {machine['device']}, {machine['cpu_count']} cores, jax {machine['jax']}, {machine['date'][:10]}"
        )
        atomic_write(CHART.value, chart.draw(rows, title, CHART.value.rsplit(".")[-1]))


def check_flags():
    """Refuses what cannot be measured or written before anything runs."""
    for name in ONLY.value:
        if name not in PARTS:
            raise UsageError(f"--only={name}: choose from {', '.join(PARTS)}")
    if PRESET.value not in PRESETS:
        raise UsageError(f"--preset={PRESET.value}: choose from {', '.join(PRESETS)}")
    if CHART.value and not CHART.value.endswith((".png", ".svg")):
        raise UsageError(f"--chart={CHART.value}: must end in .png or .svg")
    for flag, path in (("json", JSON.value), ("chart", CHART.value)):
        if path and not pathlib.Path(path).parent.is_dir():
            raise UsageError(f"--{flag}={path}: there is no folder {pathlib.Path(path).parent}")


def line(row):
    """A row of the table."""
    figures = [f"{row['part']:8} {row['name']:30} {row['ms']:10.3f} ms ({row['ms_min']:.3f} to {row['ms_max']:.3f})"]
    figures += [f"{row[unit]:,.{0 if row[unit] >= 10 else 2}f} {unit}" for unit in row if unit.endswith("/s")]
    if "share" in row:
        figures.append(f"share {row['share']:.2f} of {row['product_gflops']:,.0f} GFLOP/s")
    figures += [f"{name[:-2]} {row[name]:.2f} s" for name in row if name.endswith("_s") and name != "compile_s"]
    figures += [f"{row['times_ours']:.2f} times ours"] if "times_ours" in row else []
    figures += [f"idle {row['idle']:.2f}"] if "idle" in row else []
    figures += [f"peak {row[benchmark.PEAK]:,.0f} MB"] if benchmark.PEAK in row else []
    return "  ".join([*figures, f"compile {row['compile_s']:.1f} s"])


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
