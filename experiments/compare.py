"""Draws the evaluation returns of finished or unfinished runs of any experiment, by groups of seeds.

    python -m experiments.compare --out=models.png --title="cheetah_run" \\
        --group=RSSM=runs/a,runs/b --group=SSM=runs/c,runs/d

A group is a mean, the band from its lowest to its highest seed, and a thin line a seed. Prints the newest evaluation of
every run. With --task=walker_walk agents that play several tasks are shown at that task, beside agents of it alone
(PlaNet, Figs. 6 and 7), against its own environment steps: an equal share of all.
"""

import sys

from absl import flags

from wmjax import console
from wmjax.report.metrics import of_its_task, read_metrics
from wmjax.report.page import write_comparison
from wmjax.run import cli
from wmjax.types import UsageError


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "out", "picture to write, .png or .svg")
    flags.DEFINE_string("title", "", "its title", flag_values=values)
    text = "of agents that play several tasks, the one that is drawn; none: their means"
    flags.DEFINE_string("task", "", text, flag_values=values)
    flags.DEFINE_multi_string("group", [], "NAME=DIR,DIR,...: folders of the runs of one group", flag_values=values)


def main(argv: list[str]) -> None:
    """Draws once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    if options.out is None or not options.group:
        raise UsageError("give --out=PICTURE.png and --group=NAME=DIR,DIR,... once or more")
    groups = {}
    for group in options.group:
        name, _, folders = group.partition("=")
        if not name or not all(folders.split(",")):
            raise UsageError(f"--group={group}: give NAME=DIR,DIR,...")
        if name in groups:
            raise UsageError(f"--group={group}: there is a group {name} already")
        groups[name] = [cli.read_path("--group", folder) for folder in folders.split(",")]
    picture = write_comparison(options.out, groups, options.title, task=options.task)
    for name, folders in groups.items():
        for folder in folders:
            rows = [row for row in of_its_task(read_metrics(folder), options.task) if "eval/return_mean" in row]
            newest = "not evaluated yet"
            if rows:
                last = rows[-1]
                steps = (
                    f"{last['env_steps']:.0f} environment steps"
                    if "env_steps" in last
                    else f"{last['updates']} updates"
                )
                newest = f"return {last['eval/return_mean']:.1f} at {steps}"
            console.say(f"{name}: {folder}: {newest}")
    console.say(f"picture: {picture}")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
