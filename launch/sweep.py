"""Runs a training main with every combination of values, on this machine's cores and GPUs or on a cluster.

    python -m launch.sweep --main=experiments.planet --config=experiments/planet/config.py:cheetah_run,cpu \\
        --folder=runs/kinds --set=model.kind=rssm,ssm,rnn --set=seed=0:5 --config.train.episodes=60 --jobs=2
    python -m launch.sweep --folder=runs/kinds                     goes on with what is unfinished
    python -m launch.sweep --folder=runs/kinds --status            or --report, --retry=failed, --dry_run
    python -m launch.sweep --folder=runs/kinds --extend --set=seed=5:10

Each --set is an axis of the product, all --zip together are one. --config.key=value holds for every cell. Every cell is
checked as the main would before the first one starts. --pack makes one program of several seeds or tasks. Exit code 0:
all cells are done; 2: bad input, or some have failed; 75: stopped by a signal, the same command goes on.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.runs import read_config
from launch import grid, ray, results, slurm
from launch.grid import SEED, TASK
from launch.results import Run
from wmjax import console
from wmjax.run import cli, jobs, pools, stop
from wmjax.run.jobs import Job
from wmjax.storage import files, workdir
from wmjax.types import EnvSpec, UsageError

Definition = dict[str, Any]  # what a folder's sweep.json holds

SWEEP = "sweep.json"
FAILED = "failed"
MAINS = tuple(f"experiments.{name}" for name in ("planet", "smaller_world_models", "environment_models", "i2a"))
NO_SWEEP = "give --main=MODULE, --config=FILE:ARGUMENT and --set=KEY=V1,V2 once or more"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_string("main", None, "training main, such as experiments.planet", flag_values=values)
    flags.DEFINE_string("config", None, "its FILE:ARGUMENT; --config.key=value as for the main", flag_values=values)
    cli.path_flag(values, "folder", "of the sweep; a folder for each run is made in it")
    flags.DEFINE_multi_string("set", [], "axis KEY=V1,V2 or KEY=FROM:TO; once or more", flag_values=values)
    flags.DEFINE_multi_string("zip", [], "as --set, but all of these together are one axis", flag_values=values)
    flags.DEFINE_list("tasks", [], "axis: tasks in place of the one in --config's argument", flag_values=values)
    flags.DEFINE_enum("pack", None, [SEED, TASK], "trains several of these in one program", flag_values=values)
    cli.int_flag(values, "pack_size", 4, "seeds or tasks of one program with --pack", 2, 1024)
    flags.DEFINE_enum("engine", "local", list(ENGINES), "where the runs compute", flag_values=values)
    cli.int_flag(values, "jobs", None, "local, ray: runs at a time; none: one, or as GPUs or cluster hold", 1, 4096)
    cli.int_flag(values, "per_gpu", 1, "local, ray: runs that share a GPU", 1, 64)
    flags.DEFINE_multi_string("slurm", [], "slurm: submitit's key=value, such as partition=gpu", flag_values=values)
    cli.int_flag(values, "tries", 3, "of a run that ends with another code than 0, 2, 3 and 75", 1, 1000)
    flags.DEFINE_bool("extend", False, "adds the values of --set, --zip and --tasks to the sweep", flag_values=values)
    flags.DEFINE_bool("status", False, "prints the cells and their states", flag_values=values)
    flags.DEFINE_bool("report", False, "writes report.html and sweep.csv", flag_values=values)
    flags.DEFINE_enum("retry", None, [FAILED], "runs those again that have failed", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "prints what would be started, as lines for a shell", flag_values=values)


def main(argv: list[str]) -> None:
    """Starts, continues or shows a sweep. argv: the command line."""
    fixed = [word for word in argv[1:] if re.match(r"--?config\.", word)]
    options = cli.parse_flags([word for word in argv if word not in fixed], define_flags, __name__)
    if options.folder is None:
        raise UsageError(f"give --folder=DIR of a sweep; for a new one {NO_SWEEP}")
    folder = Path(options.folder)
    definition = define(options, [word.partition("config.")[2] for word in fixed], folder)
    runs = plan(folder, definition)
    if options.status or options.report:
        found = results.read(runs, definition["axes"], options.tries)
        console.say("\n".join(results.status(found)))
        if options.report:
            console.say(f"report: {results.write_report(folder, found)}")
        return
    if options.slurm and options.engine != "slurm":
        raise UsageError(f"--slurm={options.slurm[0]}: is of --engine=slurm, not of {options.engine}")
    check_folder(folder)
    slurm.read_options(options.slurm)
    check(definition, runs, options.engine)
    unfinished = todo(runs, options)
    if options.dry_run:
        console.say("\n".join(shell_lines(unfinished, options)) or "# nothing is left to start")
        return
    start = ENGINES[options.engine](options, folder)
    try:
        write_definition(folder, definition)
        for job in unfinished:
            if jobs.state(job.folder, options.tries) == FAILED:
                jobs.forget(job.folder)
        stop.listen()
        start(unfinished)
        finish(folder, results.read(runs, definition["axes"], options.tries))
    finally:
        workdir.close_workdir(folder)


def finish(folder: Path, found: list[results.Result]) -> None:
    """Prints how a sweep ended and writes its report; raises UsageError where runs have failed. found: its results."""
    console.say("\n".join(results.status(found)))
    page = console.try_drawing(results.write_report, folder, found)
    console.say(f"report: {page or 'could not be written'}")
    failed = [each for each in found if each.state == FAILED]
    if failed:
        first = f"{failed[0].name} ended with exit code {failed[0].ended.code}"
        raise UsageError(f"{len(failed)} of {len(found)} cells failed: {first}; --retry={FAILED} runs them again")


def define(options: Any, settings: list[str], folder: Path) -> Definition:
    """The definition of the sweep: that of its folder, where the flags name none.

    Args: settings: "key=value" of every cell, of --config.key=value.
    Raises: UsageError for flags that are missing or contradict each other, and a folder that holds another sweep.
    """
    old, given = read_definition(folder), read_flags(options, settings)
    if not any(given.values()):
        if old is None:
            raise UsageError(f"{folder} holds no sweep: {NO_SWEEP}")
        return old
    if options.extend:
        if old is None:
            raise UsageError(f"--extend: {folder} holds no sweep")
        kept = {name: value for name, value in given.items() if value and name not in ("axes", "zipped")}
        check_same(folder, old, old | kept)
        axes = grid.extended(old, given["axes"], given["zipped"])
        return with_packs(old | dict(axes=axes))
    if not given["main"] or not given["config"] or not given["axes"]:
        raise UsageError(NO_SWEEP)
    if old is not None:
        check_same(folder, old, given)
        return old
    return with_packs(given)


def with_packs(definition: Definition) -> Definition:
    """A definition whose `packs` are of its present axes."""
    key, size, old = definition["pack"], definition["pack_size"], definition.get("packs", [])
    return definition | dict(packs=grid.packs(key, definition["axes"].get(key, []), size, old))


def read_flags(options: Any, settings: list[str]) -> Definition:
    """What the flags say of the definition; UsageError for those that contradict each other."""
    axes, zipped = grid.read_axes(options.set, options.zip, options.tasks)
    for setting in settings:
        key, equals, _ = setting.partition("=")
        if not equals or key in axes:
            why = "there is an axis of it" if equals else "give --config.key=value"
            raise UsageError(f"--config.{setting}: {why}")
    if options.pack and not options.extend:
        if SEED not in axes or options.pack in zipped:
            raise UsageError(f"--pack={options.pack} needs --set={SEED}=...")
        if options.pack not in axes:
            raise UsageError(f"--pack={TASK} needs --tasks=FIRST,SECOND")
    given = dict(main=options.main, config=options.config, settings=settings, axes=axes, zipped=zipped)
    return given | dict(pack=options.pack or "", pack_size=options.pack_size if options.pack else 0)


def read_definition(folder: Path) -> Definition | None:
    """The definition of the sweep in a folder; None if it holds none."""
    try:
        found = files.read_sealed(folder / SWEEP)
        return dict(pack=SEED if found["pack_size"] else "") | found  # seeds alone were packed until 2026-11-29
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise UsageError(f"{folder / SWEEP} is damaged: choose another folder, or remove it") from error


def write_definition(folder: Path, definition: Definition) -> None:
    """Makes the folder this process's own and keeps the definition in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workdir.lock(folder)
        files.write_sealed(folder / SWEEP, definition)
    except OSError as error:
        raise UsageError(f"cannot use {folder} for a sweep: {error}") from error


def check_folder(folder: Path) -> None:
    """Raises UsageError for a folder that cannot be a sweep's, or is a run's."""
    files.check_place(folder)
    if (folder / workdir.CONFIG).exists():
        raise UsageError(f"{folder} is the working folder of a run: choose another folder")


def check_same(folder: Path, old: Definition, new: Definition) -> None:
    """Raises UsageError, with the differences, unless two definitions have the same cells."""
    before, after = ({k: v for k, v in workdir.flatten(x).items() if k != "packs"} for x in (old, new))
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    if keys:
        changes = "; ".join(f"{key} {before.get(key)} -> {after.get(key)}" for key in keys)
        more = "; --extend adds values" if all(key.startswith("axes.") for key in keys) else ""
        raise UsageError(f"{folder} holds another sweep: {changes}{more}; choose another folder")


def plan(folder: Path, definition: Definition) -> list[Run]:
    """The runs of a sweep, in the order in which they start. definition: as of `define`."""
    cells = grid.product(definition["axes"], definition["zipped"])
    packs = [pack for pack in definition["packs"] if len(pack) > 1]
    runs = []
    for names in grid.packed(cells, definition["pack"], packs):
        own = {name: cells[name] for name in names}
        first, run_folder = own[names[0]], folder / names[0]
        folders, population = {names[0]: run_folder}, []
        if len(names) > 1:
            first, name, members = grid.joined(definition["pack"], list(own.values()))
            run_folder = folder / name
            folders = {name: run_folder / member for name, member in zip(names, members, strict=True)}
            population = [f"population={len(names)}"] if definition["pack"] == SEED else []
        config, words = grid.words(definition["config"], definition["settings"], first)
        runs.append(Run(jobs.training(definition["main"], run_folder, config, [*words, *population]), own, folders))
    return runs


def check(definition: Definition, runs: Sequence[Run], engine: str) -> None:
    """Raises UsageError, with the name of a cell, for what its main would refuse.

    On the machine that computes, engine local, one environment of each task is tried too.
    """
    module = definition["main"]
    found = agent_of(module)
    specs: dict[tuple[str, str], EnvSpec] = {}
    for run in runs:
        try:
            if len(run.cells) > 1 and definition["pack"] == SEED:
                check_population(definition, run)
            config = read_config(run.job, module)
            settings = found.read_settings(config)
            members = getattr(settings, "members", ())
            if len(run.cells) > 1:
                check_packed(definition, run, config, len(members))
            for task in {each.task for each in members} if engine == "local" else ():
                if (task, str(settings.env)) not in specs:
                    specs[task, str(settings.env)] = pools.spec_of(task, settings.env)
            if len(run.cells) > 1 and engine == "local":
                pools.check_alike({each.task: specs[each.task, str(settings.env)] for each in members})
        except UsageError as error:
            raise UsageError(f"cell {next(iter(run.cells))}: {error}") from error


def agent_of(module: str) -> Any:
    """The module agent.py of a training main; UsageError for what is none."""
    mains = ", ".join(MAINS)
    try:
        found = importlib.util.find_spec(f"{module}.__main__") and importlib.import_module(f"{module}.agent")
    except ImportError as error:
        own = f"{module}.agent".startswith(error.name or "-") or (error.name or "").startswith(module)
        why = "" if own else f": {error}"  # of a package that it needs
        raise UsageError(f"--main={module} is no training main{why}; those of this project: {mains}") from error
    if not hasattr(found, "read_settings"):
        raise UsageError(f"--main={module} is no training main; those of this project: {mains}")
    return found


def config_alone(definition: Definition, cell: grid.Cell) -> Any:
    """The config of one cell that is in no pack. cell: {key: value}."""
    config, words = grid.words(definition["config"], definition["settings"], cell)
    return read_config(jobs.training(definition["main"], Path(), config, words), definition["main"])


def check_population(definition: Definition, run: Run) -> None:
    """Raises UsageError for a program of several seeds where its main trains one agent alone."""
    if "population" not in config_alone(definition, next(iter(run.cells.values()))):
        raise not_in_one(definition, run)


def not_in_one(definition: Definition, run: Run) -> UsageError:
    """The error of a main that does not train the agents of all cells of a run in one program."""
    agents = f"{len(run.cells)} agents in one program"
    return UsageError(f"--pack={definition['pack']}: {definition['main']} does not train {agents}")


def check_packed(definition: Definition, run: Run, config: Any, members: int) -> None:
    """Raises UsageError unless a program of several cells is to each what a program of its own would be.

    Args: config: of the program, which trains so many `members`.
    """
    if members != len(run.cells):
        raise not_in_one(definition, run)
    together = workdir.flatten(config.to_dict())
    for cell in run.cells.values() if definition["pack"] == TASK else ():  # a preset may depend on the task
        alone = workdir.flatten(config_alone(definition, cell).to_dict())
        for key in sorted((together.keys() | alone.keys()) - {TASK}):
            if together.get(key) != alone.get(key):
                own = f"{together.get(key)} in the pack and {alone.get(key)} of {cell[TASK]} alone"
                raise UsageError(f"--pack={TASK}: config.{key} is {own}: give one for all, or leave the task out")


def todo(runs: Sequence[Run], options: Any) -> list[Job]:
    """The jobs that are to be started: those that are neither done nor failed, with --retry=failed these too."""
    left_out = ("done",) if options.retry else ("done", FAILED)
    return [run.job for run in runs if jobs.state(run.job.folder, options.tries) not in left_out]


def shell_lines(unfinished: Sequence[Job], options: Any) -> list[str]:
    """The lines of --dry_run."""
    slots = local_slots(options) if options.engine == "local" else [jobs.Slot((), {}, "")]
    return [jobs.shell(job, slots[index % len(slots)]) for index, job in enumerate(unfinished)]


def local_slots(options: Any) -> list[jobs.Slot]:
    """The slots of this machine; UsageError where its GPUs hold fewer than --jobs."""
    cores, gpus = jobs.allowed_cores(), jobs.visible_gpus(os.environ)
    held = len(gpus) * options.per_gpu
    count = options.jobs or held or 1
    if gpus and count > held:
        raise UsageError(f"--jobs={count}: {len(gpus)} GPUs hold {held} with --per_gpu={options.per_gpu}")
    return jobs.make_slots(count, cores, gpus, options.per_gpu)


def local(options: Any, folder: Path) -> Callable[[Sequence[Job]], None]:
    """The engine of this machine: a queue of slots over processes."""
    del folder
    slots = local_slots(options)

    def start(unfinished: Sequence[Job]) -> None:
        for _ in jobs.run_all(unfinished, slots, options.tries):
            pass

    return start


# (flags, folder) -> function of jobs, which returns when they ended
ENGINES = dict(local=local, slurm=slurm.engine, ray=ray.engine)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
