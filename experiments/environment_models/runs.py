"""Trainings of environment models as processes of their own, for tables over many runs."""

import pathlib
import subprocess
import sys
import time

from experiments.environment_models import config as configs
from wmjax.run import stop
from wmjax.types import UsageError


def train(folder, argument, settings, prefix=(), log=None):
    """Trains one run, or resumes it; returns at once where it is finished.

    Args:
        folder: of the run.
        argument: "data,model,preset" of config.py.
        settings: overrides such as "model.channels=8".
        prefix: words before the command, such as those of taskset.
        log: an open file for what the run prints; None: the terminal.

    Raises:
        UsageError: training ended with another exit code than 0.
        stop.Stopped: a signal came since `stop.listen`; the run was asked to save and end.
    """
    command = [*prefix, sys.executable, "-m", "experiments.environment_models", f"--workdir={folder}"]
    command += [f"--config={pathlib.Path(configs.__file__)}:{argument}"]
    command += [f"--config.{setting}" for setting in settings]
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
        raise UsageError(f"{folder}: training ended with exit code {process.returncode}{where}")
