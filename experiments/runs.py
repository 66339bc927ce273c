"""Trainings as processes of their own, for tables and figures over many runs."""

import queue
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from absl import flags

from wmjax import console
from wmjax.run import stop
from wmjax.types import UsageError


class Training(NamedTuple):
    """One run of a main."""

    main: str  # module, such as experiments.planet
    folder: str  # of the run
    config: str  # "FILE:ARGUMENT"
    settings: list[str]  # overrides such as "model.channels=8"


def cores_flag(values):
    """Defines --cores=0,1,... in absl's FlagValues `values`; an empty list unless given."""
    told = "numbers of cores, a run on each; none: one run at a time on all cores"
    flags.DEFINE_list("cores", [], told, flag_values=values)


def check_cores(cores):
    """Raises UsageError unless all of --cores are numbers."""
    for core in cores:
        if not core.isdecimal():
            raise UsageError(f"--cores={core}: must be numbers of cores, such as 0,1")


def train_all(trainings, cores):
    """Trains what is not finished, one run on each of `cores` at a time; what a run prints is in FOLDER.log.

    Raises: as `train`, the first error after all others have ended.
    """
    prefixes: queue.SimpleQueue = queue.SimpleQueue()  # of the cores that are free
    pinned: list[tuple[str, ...]] = [("taskset", "-c", core) for core in cores]
    for prefix in pinned or [()]:
        prefixes.put(prefix)

    def train_one(training):
        prefix = prefixes.get()
        console.say(" ".join([training.folder, *prefix]))
        try:
            with open(f"{training.folder}.log", "w") as log:
                train(training, prefix, log)
        finally:
            prefixes.put(prefix)

    with ThreadPoolExecutor(prefixes.qsize()) as pool:
        for future in [pool.submit(train_one, training) for training in trainings]:
            future.result()


def train(training, prefix=(), log=None):
    """Trains one run, or resumes it; returns at once where it is finished.

    Args:
        prefix: words before the command, such as those of taskset.
        log: an open file for what the run prints; None: the terminal.

    Raises:
        UsageError: training ended with another exit code than 0.
        stop.Stopped: a signal came since `stop.listen`; the run was asked to save and end.
    """
    stop.check()
    command = [*prefix, sys.executable, "-m", training.main, f"--workdir={training.folder}"]
    command += [f"--config={training.config}", *(f"--config.{setting}" for setting in training.settings)]
    # In a group of its own, so that Ctrl-C reaches it once, from here.
    process, told = subprocess.Popen(command, stdout=log, stderr=log and subprocess.STDOUT, process_group=0), False
    while process.poll() is None:
        time.sleep(0.1)
        if stop.asked() and not told:
            process.terminate()
            told = True
    stop.check()
    if process.returncode:
        where = "" if log is None else f", see {log.name}"
        raise UsageError(f"{training.folder}: training ended with exit code {process.returncode}{where}")
