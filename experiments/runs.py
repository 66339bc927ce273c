"""Trainings as processes of their own, for tables and figures over many runs."""

import contextlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from wmjax import console
from wmjax.report.page import write_whole
from wmjax.run import cli, jobs, stop
from wmjax.types import UsageError


def define_flags(values: flags.FlagValues, example: str) -> None:
    """Defines --folder, --seeds, --set and --cores in absl's FlagValues `values`. example: of a setting."""
    cli.path_flag(values, "folder", "where the runs are, or will be")
    cli.int_flag(values, "seeds", 3, "of every variant, from 0", 1, 100)
    told = f"setting of every run, as {example}; once or more"
    flags.DEFINE_multi_string("set", [], told, flag_values=values)
    told = "numbers of cores, a run on each; none: one run at a time on all cores"
    flags.DEFINE_list("cores", [], told, flag_values=values)


def check_folder(options: Any) -> pathlib.Path:
    """--folder. Raises UsageError where it is not given, and unless all of --cores are numbers."""
    if options.folder is None:
        raise UsageError("give --folder=DIR, where the runs are, or will be")
    for core in options.cores:
        if not core.isdecimal():
            raise UsageError(f"--cores={core}: must be numbers of cores, such as 0,1")
    return pathlib.Path(options.folder)


def places(folder: pathlib.Path, names: Iterable[str], seeds: int) -> dict[str, list[pathlib.Path]]:
    """{name: the folder of each seed's run}."""
    return {name: [folder / f"{name}_seed_{seed}" for seed in range(seeds)] for name in names}


def train_missing(trainings: Sequence[jobs.Job], cores: Sequence[str] = ()) -> None:
    """As `train_all`, but runs that are done are not started again."""
    train_all([job for job in trainings if jobs.state(job.folder, 1) != "done"], cores)


def publish(path: pathlib.Path, lines: Sequence[str]) -> None:
    """Prints lines and writes them as a file."""
    console.say("\n".join(lines))
    write_whole(path, "\n".join(lines) + "\n")


def train_all(trainings: Sequence[jobs.Job], cores: Sequence[str] = ()) -> None:
    """Trains what is not finished, one run on each of `cores` at a time; what a run prints is in FOLDER.log.

    Args: trainings: of `jobs.training`; cores: numbers of cores, as text; none: one run at a time on all.
    Raises:
        UsageError: a training ended with another exit code than 0.
        stop.Stopped: a signal came.
        In both cases the runs that were under way have been asked to save, and have ended.
    """
    for job in trainings:
        jobs.forget(job.folder)
    slots = jobs.make_slots(len(cores) or 1, [int(core) for core in cores] or jobs.allowed_cores())
    stop.listen()
    try:
        with contextlib.closing(jobs.run_all(trainings, slots, tries=1)) as runs:
            for job, ended in runs:
                if ended.code:
                    told = f"training ended with exit code {ended.code}: {ended.last}"
                    raise UsageError(f"{job.folder}: {told}; see {jobs.log_of(job.folder)}")
    finally:
        stop.forget()
