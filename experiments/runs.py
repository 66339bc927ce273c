"""Trainings as processes of their own, for tables and figures over many runs."""

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from experiments import training
from wmjax import console
from wmjax.run import cli, jobs, stop
from wmjax.storage import files, workdir
from wmjax.storage.files import write_whole
from wmjax.types import UsageError

SEEDS = "*_seed_*"  # what `run_folders` names, and the logs beside them
RANDOM = "random"  # a --policy that is no folder


def define_flags(values: flags.FlagValues, example: str) -> None:
    """Defines --folder, --seeds, --set and --cores in absl's FlagValues `values`. example: of a setting."""
    cli.path_flag(values, "folder", "where the runs are, or will be")
    cli.int_flag(values, "seeds", 3, "of every variant, from 0", 1, 100)
    text = f"setting of every run, as {example}; once or more"
    flags.DEFINE_multi_string("set", [], text, flag_values=values)
    text = "numbers of cores, a run on each; none: one run at a time on all cores"
    flags.DEFINE_list("cores", [], text, flag_values=values)


def check_flags(options: Any, chosen: Mapping[str, str], made: Sequence[str] = (SEEDS,)) -> pathlib.Path:
    """The folder of the runs.

    Args: options: of `define_flags`; chosen: {key of a config: the flag that chooses it, run by run}; made: as of
      `check_folder`.
    Raises UsageError as `check_folder`, for --cores that are not there, and for a --set of `chosen`.
    """
    folder = check_folder(options, made)
    allowed = ", ".join(map(str, jobs.allowed_cores()))
    for core in options.cores:
        if not core.isdecimal():
            raise UsageError(f"--cores={core}: must be numbers of cores, such as 0,1")
        if not has_core(int(core)):
            raise UsageError(f"--cores={core}: there is no such core; choose of {allowed}")
    chosen = {"seed": "--seeds", **chosen}
    for setting in options.set:
        if (key := setting.partition("=")[0]) in chosen:
            raise UsageError(f"--set={setting}: give {chosen[key]} instead")
    return folder


def check_folder(options: Any, made: Sequence[str]) -> pathlib.Path:
    """The --folder of a command over many runs or episodes.

    Args: made: patterns of what the command leaves there; a folder with other files alone is somebody else's.
    Raises UsageError for none, that of a run, somebody else's, and one in which nothing can be written.
    """
    if options.folder is None:
        raise UsageError("give --folder=DIR, where the results are, or will be")
    folder = pathlib.Path(options.folder)
    if (folder / workdir.CONFIG).exists():
        raise UsageError(f"--folder={folder} is the working folder of a run: choose another folder")
    files.check_place(folder)
    others = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".tmp")) if folder.exists() else []
    if others and not any(any(folder.glob(pattern)) for pattern in made):
        names = ", ".join(others[:3])
        raise UsageError(f"--folder={folder} has files ({names}), none of them this command's: choose another folder")
    return folder


def policy_folder(policy: str) -> str | None:
    """The folder of a --policy, who plays data that are recorded; None for RANDOM. Raises UsageError for another."""
    if policy == RANDOM:
        return None
    folder = cli.read_path("--policy", policy)
    if not (pathlib.Path(folder) / workdir.CONFIG).exists():
        raise UsageError(f"--policy={policy}: holds no run; give {RANDOM}, or the folder of a run")
    return folder


def has_core(core: int) -> bool:
    """Whether this process may compute on a core, by trying it; `taskset` asks for no more."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, ValueError, OverflowError):
        return False
    os.sched_setaffinity(0, before)
    return True


def check(trainings: Sequence[jobs.Job], read_settings: Callable[[Any], Any]) -> list[Any]:
    """Raises UsageError for settings that a main would refuse, or of which one undoes another, before any training.

    Args: trainings: of `jobs.training`; read_settings: the experiment's own. Returns: the settings of each.
    """
    for job in trainings:
        keys = [word.partition("=")[0].removeprefix("--") for word in job.command if word.startswith("--config.")]
        if twice := [key for key in keys if keys.count(key) > 1]:
            why = f"--set gives it twice, or it is what this command sets itself, as for {job.folder.name}"
            raise UsageError(f"{twice[0]}: {why}")
    return [read_settings(read_config(job, __name__)) for job in trainings]


def read_config(job: jobs.Job, module: str) -> Any:
    """The config of a training's command line, as its main reads it. module: named where --help is asked for."""
    words = [word for word in job.command if word.startswith("--config")]
    return cli.parse_flags([module, *words], functools.partial(training.define_flags, ""), module).config


def write_definition(path: pathlib.Path, definition: dict[str, Any]) -> None:
    """Writes what all runs of a folder have in common, plain values; UsageError where the file holds other values."""
    try:
        old = dict(json.loads(path.read_bytes())) if path.exists() else definition
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: choose another --folder, or remove it") from error
    if old != definition:
        changed = [f"{key} {old.get(key)} -> {new}" for key, new in definition.items() if old.get(key) != new]
        raise UsageError(f"{path.parent} holds runs of other settings: {', '.join(changed)}; choose another --folder")
    files.make_folder(path.parent)
    write_whole(path, json.dumps(definition) + "\n")


def run_folders(folder: pathlib.Path, names: Iterable[str], seeds: int) -> dict[str, list[pathlib.Path]]:
    """{name: the folder of each seed's run}."""
    return {name: [folder / f"{name}_seed_{seed}" for seed in range(seeds)] for name in names}


def train_missing(trainings: Sequence[jobs.Job], cores: Sequence[str] = ()) -> None:
    """As `train_all`, but runs that are done are not started again."""
    train_all(missing(trainings), cores)


def missing(trainings: Sequence[jobs.Job]) -> list[jobs.Job]:
    """Those whose runs are not done."""
    return [job for job in trainings if jobs.state(job.folder, 1) != "done"]


def publish(path: pathlib.Path, lines: Sequence[str]) -> None:
    """Prints lines and writes them as a file."""
    console.say("\n".join(lines))
    write_whole(path, "\n".join(lines) + "\n")


def train_all(trainings: Sequence[jobs.Job], cores: Sequence[str] = ()) -> None:
    """As `train_or_diverge`, but a run that diverged is a UsageError too, once the others have ended."""
    for folder, ended in train_or_diverge(trainings, cores).items():
        raise failure(folder, ended)


def train_or_diverge(trainings: Sequence[jobs.Job], cores: Sequence[str] = ()) -> dict[pathlib.Path, jobs.Ended]:
    """Trains what is not finished, one run on each of `cores` at a time; what a run prints is in FOLDER.log.

    Args: trainings: of `jobs.training`; cores: numbers of cores, as text; none: one run at a time on all.
    Returns: how each run ended that diverged, which is to say stopped at a number that is not finite, by its folder.
    Raises:
        UsageError: a training failed in another way; nothing can be written where its folder would be.
        stop.Stopped: a signal came.
        In both cases the runs that were under way have been asked to save, and have ended.
    """
    for job in trainings:
        files.make_folder(job.folder.parent)
        jobs.forget(job.folder)
    slots = jobs.make_slots(len(cores) or 1, [int(core) for core in cores] or jobs.allowed_cores())
    diverged = {}
    stop.listen()
    try:
        with contextlib.closing(jobs.run_all(trainings, slots, tries=1)) as runs:
            for job, ended in runs:
                if ended.code == cli.NOT_FINITE:
                    diverged[job.folder] = ended
                elif ended.code:
                    raise failure(job.folder, ended)
    finally:
        stop.forget()
    return diverged


def failure(folder: pathlib.Path, ended: jobs.Ended) -> UsageError:
    """What is said of a run that ended with another exit code than 0."""
    return UsageError(f"{folder}: training ended with exit code {ended.code}: {ended.last}; see {jobs.log_of(folder)}")
