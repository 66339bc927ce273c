"""The engine of ray's clusters, through ray's core: a remote task for each run, which shares the folder of the sweep.

A task starts its run as a process and does with its exit code what this machine's engine does. A cluster is what
RAY_ADDRESS names, or one that `ray start` left on this machine, or else this machine itself.
"""

import collections
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wmjax.run import jobs, stop
from wmjax.run.jobs import Job
from wmjax.types import UsageError

INSTALL = f"{sys.executable} -m pip install 'ray>=2.60'"
POLL = 1.0  # seconds


def engine(options: Any, folder: Path) -> Callable[[Sequence[Job]], None]:
    """The engine of a cluster; UsageError where ray is missing or the cluster cannot be reached."""
    del folder
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"--engine=ray needs the extra wmjax[ray]: {INSTALL}")
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ray raises bare ones too, as where its own processes do not begin in time
        raise UsageError(f"--engine=ray: {error}") from error
    gpus = ray.cluster_resources().get("GPU", 0)
    environment = jobs.share_of_gpu(options.per_gpu) if gpus else {}
    task = ray.remote(num_gpus=1 / options.per_gpu if gpus else 0, max_retries=0)(run_cell)

    def begin(job: Job) -> Any:
        return task.remote(job, options.tries, jobs.ALLOCATOR | environment, os.getcwd())

    return lambda unfinished: run_on(ray, begin, unfinished, options.tries, options.jobs or len(unfinished))


def run_cell(job: Job, tries: int, environment: Mapping[str, str], cwd: str) -> None:
    """The remote task: runs a job to its end. Ray interrupts it to cancel it; the run then saves first.

    Args: environment: what its process gets beside the task's own; cwd: the folder where the command was typed.
    """
    os.chdir(cwd)
    for _ in jobs.run_all([job], [jobs.Slot((), environment, socket.gethostname())], tries):
        pass


def run_on(ray: Any, begin: Callable[[Job], Any], unfinished: Sequence[Job], tries: int, most: int) -> None:
    """Runs jobs as tasks, `most` at a time or as many as the cluster holds, and those again that go on.

    Args: ray: the package; begin: submits a task, whose reference it returns.
    Raises: stop.Stopped: a signal came, and the runs have saved.
    """
    waiting, working = collections.deque(unfinished), {}
    while (waiting or working) and not stop.asked():
        while waiting and len(working) < most:
            job = waiting.popleft()
            working[begin(job)] = (job, jobs.written_at(job.folder))
        for reference in ray.wait(list(working), timeout=POLL)[0]:
            job, before = working.pop(reference)
            ended = jobs.ended_elsewhere(job.folder, before, f"ray: {fault_of(ray, reference)}")
            if jobs.goes_on(ended, tries):
                waiting.append(job)
    for reference in working:
        ray.cancel(reference)
    if working:
        ray.wait(list(working), num_returns=len(working))
    stop.check()


def fault_of(ray: Any, reference: Any) -> str:
    """The last line of what a task that is over failed with."""
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1]
    return "the task ended without a word"
