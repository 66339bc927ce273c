"""The trade-offs study: which parts of a visual model matter for planning (Babaeizadeh et al. 2020), in one command.

    python -m experiments.trade_offs.study --preset=cpu --tasks=cheetah_run --seeds=3 --folder=runs/trade --cores=0,1

Trains what is missing, as processes of PlaNet's main and of its offline trainer, and writes FOLDER/study.md with the
paper's tables and figures beside the published numbers. The same command goes on; a folder belongs to one preset and
one set of settings. A run that diverges is told and left out. Parts:

    online      the five designs of Fig. 1 (Table 5, Figs. 2, 3, 14)
    faults      what two faults of the published code cost
    offline     the same designs on the episodes of all of them (Tables 1, 2, Fig. 8)
    optimism    offline, without episodes of high reward (Fig. 9)
    crop, resize  lt_lr that predicts less of the image (Figs. 4, 6)
    scale       smaller models of two designs (Tables 3, 14, 15, Fig. 11)
    sharing     with and without the reward's gradient in the representation (Fig. 7)
    rewards     models without images (Fig. 10)
    cost        parameters, operations and time (Tables 6, 7)
"""

import multiprocessing
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
from absl import flags

from experiments import runs
from experiments.planet.agent import Settings, check_lengths, make_agent, read_settings, spec_of
from experiments.trade_offs import cells as grid
from experiments.trade_offs import config as configs
from experiments.trade_offs import cost, offline, tables
from experiments.trade_offs.cells import Cell
from wmjax.envs.check import check_name, check_names, check_once
from wmjax.run import cli, jobs
from wmjax.types import UsageError

CURVES = ("crop", "resize", "rewards")  # parts whose runs are compared by their returns alone
OFFLINE = ("offline", "optimism")
PARTS = ("online", "faults", "offline", "optimism", "crop", "resize", "scale", "sharing", "rewards", "cost")
DEFINITION = "study.json"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_list("parts", list(PARTS), f"of {', '.join(PARTS)}", flag_values=values)
    text = f"of {', '.join(configs.DESIGNS)}: leaves out the others"
    flags.DEFINE_list("designs", list(configs.DESIGNS), text, flag_values=values)
    flags.DEFINE_list("tasks", ["cheetah_run"], "as in config.py", flag_values=values)
    flags.DEFINE_string("preset", "cpu", f"one of {', '.join(configs.PRESETS)}", flag_values=values)
    runs.define_flags(values, "env.size=32")


def main(argv: list[str]) -> None:
    """Trains what is missing and writes the page. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check(options)
    variants = grid.variants(options.preset, image_size(options.set))
    used = {part: of_designs(own, options.designs) for part, own in variants.items() if part in needed(options.parts)}
    made = used | ({"cost": of_designs(variants["online"], options.designs)} if "cost" in options.parts else {})
    if empty := [part for part, own in made.items() if not own]:
        raise UsageError(f"--designs={','.join(options.designs)}: none of them is in the part {', '.join(empty)}")
    asked = {part: grid.make_cells(folder, options.tasks, options.seeds, own) for part, own in used.items()}
    unique = dict.fromkeys(cell for own in asked.values() for cell in own)
    firsts = dict.fromkeys(cell for own in made.values() for cell in grid.make_cells(folder, options.tasks, 1, own))
    settings = runs.check([grid.training(cell, options.preset, options.set) for cell in firsts], read_settings)
    new = {cell.name for cell in [*unique, *firsts] if jobs.state(cell.folder, 1) != "done"}
    asking = [(cell, own) for cell, own in zip(firsts, settings, strict=True) if cell.name in new]
    check_agents({name: own for cell, own in asking for name in (cell.name, cell.task)})
    runs.write_definition(folder / DEFINITION, dict(preset=options.preset, settings=sorted(options.set)))
    diverged = train(unique, options, grid.training)
    cells = {part: without(own, diverged) for part, own in asked.items()}
    later = {part: offline.make_cells(part, asked["online"]) for part in OFFLINE if part in options.parts}
    later = {part: [cell for cell in own if offline.pool_of(cell, cells["online"])] for part, own in later.items()}
    offline.check_pools([cell for own in later.values() for cell in own], cells.get("online", []))
    for part, own in later.items():
        diverged |= train(own, options, offline.make_training(cells["online"]))
        cells[part] = without(own, diverged)
    cli.use_jax()  # only now: while the runs train, an accelerator's memory is theirs
    runs.publish(folder / "study.md", page(options, folder, cells, diverged))


def check(options: Any) -> pathlib.Path:
    """The folder; raises UsageError for flags that are missing or name nothing."""
    chosen = {"task": "--tasks"} | dict.fromkeys(("family", "model.kind"), "--designs")
    folder = runs.check_flags(options, chosen, made=[DEFINITION])
    if not options.tasks:
        raise UsageError("--tasks=: give at least one")
    check_once("--tasks", options.tasks)
    check_names("--parts", options.parts, PARTS)
    check_names("--designs", options.designs, configs.DESIGNS)
    if left_out := [design for design in grid.MAIN if design not in options.designs]:
        for part in set(OFFLINE) & set(options.parts):
            raise UsageError(f"--parts={part}: learns from the episodes of {', '.join(left_out)} too; add to --designs")
    check_name("--preset", options.preset, configs.PRESETS)
    return folder


def image_size(settings: Sequence[str]) -> int | None:
    """What settings, "env.size=32", say of images; None: nothing, or nothing that a run would take."""
    given = [value for key, _, value in (setting.partition("=") for setting in settings) if key == "env.size"]
    return int(given[-1]) if given and given[-1].isdecimal() else None


def check_agents(settings: Mapping[str, Settings]) -> None:
    """Raises UsageError for the first task or variant, by name, whose agent PlaNet's main would refuse to make.

    In a process of its own, on the CPU: an accelerator's memory is the runs'.
    """
    if settings:
        with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
            others.submit(make_agents, settings).result()


def make_agents(settings: Mapping[str, Settings]) -> None:
    """The program of `check_agents`."""
    jax.config.update("jax_platforms", "cpu")
    for name, own in settings.items():
        try:
            spec = spec_of(own)
            make_agent(own, spec)
            check_lengths(own.train, [spec])
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from error


def of_designs(variants: Mapping[str, grid.Variant], designs: Sequence[str]) -> dict[str, grid.Variant]:
    """{name: Variant} of some designs."""
    return {name: variant for name, variant in variants.items() if variant.design in designs}


def needed(parts: Sequence[str]) -> set[str]:
    """The parts whose runs these parts are made of."""
    return {*parts, *(["online"] if set(parts) & set(OFFLINE) else [])}


def train(
    cells: Iterable[Cell], options: Any, training: Callable[[Cell, str, Sequence[str]], jobs.Job]
) -> dict[pathlib.Path, jobs.Ended]:
    """Trains the cells that are not done. Returns: how each ended that diverged, by its folder."""
    trainings = [training(cell, options.preset, options.set) for cell in cells]
    return runs.train_or_diverge(runs.missing(trainings), options.cores)


def without(cells: Sequence[Cell], diverged: Collection[pathlib.Path]) -> list[Cell]:
    """The cells that have not diverged."""
    return [cell for cell in cells if cell.folder not in diverged]


def page(
    options: Any,
    folder: pathlib.Path,
    cells: Mapping[str, Sequence[Cell]],
    diverged: Mapping[pathlib.Path, jobs.Ended],
) -> list[str]:
    """The lines of study.md. cells: of each part, without those that diverged; diverged: how these ended, by folder."""
    design = next((cell.variant.design for own in cells.values() for cell in own), options.designs[0])
    means = f"Means over seeds 0 to {options.seeds - 1} with 95% intervals (Student's t)."
    lines = [
        f"# The trade-offs study: preset {options.preset} {' '.join(options.set)}".rstrip(),
        "",
        f"{means if options.seeds > 1 else 'Seed 0 alone.'} Scores are returns of the last "
        f"evaluation; published ones are of 1,000 episodes at full size.{shortened(design, options)}",
    ]
    for run, ended in diverged.items():
        lines += ["", f"{run.relative_to(folder)} diverged and is left out: {ended.last}"]
    for task in options.tasks:
        costs, own = costs_of(task, options), {part: by_name(each, task) for part, each in cells.items()}
        for part in options.parts:
            told = part_lines(part, own, task, folder, costs) if own.get(part, True) else ["Every run diverged."]
            lines += ["", f"## {task}: {part}", "", *told]
    return lines


def shortened(design: str, options: Any) -> str:
    """What to tell of returns where episodes are cut short; they are sums over the control steps. design: that ran."""
    steps = cost.read_config(options.tasks[0], design, options.preset, options.set).env.episode_steps
    return f" Episodes are cut after {steps:,} control steps, published ones have 1,000." if steps else ""


def by_name(cells: Sequence[Cell], task: str) -> dict[str, list[Cell]]:
    """{name: [Cell of each seed]} of one task."""
    own = [cell for cell in cells if cell.task == task]
    return {name: [cell for cell in own if cell.name == name] for name in dict.fromkeys(cell.name for cell in own)}


def costs_of(task: str, options: Any) -> dict[str, dict[str, Any]]:
    """{design: its cost}; times are measured for the part `cost` alone."""
    timed = "cost" in options.parts
    if not timed and "online" not in options.parts:
        return {}
    designs = [design for design in grid.MAIN if design in options.designs]
    return {design: cost.measure(task, design, options.preset, options.set, timed) for design in designs}


def part_lines(
    part: str,
    of_parts: Mapping[str, dict[str, list[Cell]]],
    task: str,
    folder: pathlib.Path,
    costs: Mapping[str, dict[str, Any]],
) -> list[str]:
    """The lines of one part and task. of_parts: {part: {name: [Cell of each seed]}}."""
    online = of_parts.get("online", {})
    cells = of_parts.get(part, online)
    if part == "online":
        return tables.online(cells, task, folder, costs)
    if part == "faults":
        return [*tables.faults(cells), "", *tables.model_errors(cells)]
    if part in OFFLINE:
        return offline.lines(part, cells, online, task, folder)
    if part in CURVES:
        return tables.returns(cells, task, folder / f"{part}_{task}.png")
    if part == "cost":
        scores = {name: tables.scores({name: cells[name]})[name].mean() for name in grid.MAIN if name in cells}
        by_cost = cost.worth(costs, scores, task) if scores else ["Scores by cost (Table 7): with the part online."]
        return [*cost.lines(costs), "", *by_cost]
    return dict(scale=tables.scaling, sharing=tables.sharing)[part](cells, task, folder)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
