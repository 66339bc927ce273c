"""The engine of clusters with slurm, through submitit: an array of jobs that save before their time is over.

A job asks submitit for its signal (USR2, 90 seconds before the limit), saves, and is put into the queue again by slurm
itself; the driver submits what ended with 75 or may be tried again. Options are submitit's names of sbatch's.
"""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wmjax import console
from wmjax.run import jobs, stop
from wmjax.run.jobs import Job
from wmjax.types import UsageError

INSTALL = f"{sys.executable} -m pip install 'submitit>=1.5'"
POLL = 1.0  # seconds
REQUEUES = 10_000  # times that slurm may stop a run at its time limit


class Resumed:
    """What a slurm job does: one run. An object because submitit asks it for what to do after the time limit."""

    def __init__(self, job: Job, tries: int):
        self.job, self.tries = job, tries
        self.worker: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        return dict(job=self.job, tries=self.tries, worker=None)

    def __call__(self) -> None:
        stop.listen()
        self.worker = threading.Thread(target=self.work)
        self.worker.start()
        while self.worker.is_alive():
            self.worker.join(POLL)

    def work(self) -> None:
        """Runs the job; in a thread, so that `checkpoint` can wait for it inside a signal handler."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # inherited: it would end the run at once
        slot = jobs.Slot((), jobs.ALLOCATOR, socket.gethostname())
        try:
            for _ in jobs.run_all([self.job], [slot], self.tries):
                pass
        except stop.Stopped:
            pass

    def checkpoint(self) -> Any:
        """Lets the run save and end; what slurm is to start afterwards, None if nothing is left to do."""
        from submitit.helpers import DelayedSubmission

        os.kill(os.getpid(), signal.SIGTERM)  # `stop` hears it, and the run gets its own
        if self.worker:
            self.worker.join()
        ended = jobs.read_ended(self.job.folder)
        again = ended is None or jobs.goes_on(ended, self.tries)
        return DelayedSubmission(Resumed(self.job, self.tries)) if again else None

    __submitit_checkpoint__ = checkpoint  # submitit calls this one, and looks whether there is the other


def engine(options: Any, folder: Path) -> Callable[[Sequence[Job]], None]:
    """The engine of a cluster; UsageError where submitit, sbatch or an option of --slurm is missing or wrong."""
    settings = dict(job_name=job_name(folder)) | read_options(options.slurm)
    if importlib.util.find_spec("submitit") is None:
        raise UsageError(f"--engine=slurm needs submitit: {INSTALL}")
    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            raise UsageError(f"--engine=slurm: there is no {program} on PATH; start this on a node that submits jobs")
    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder / "slurm", max_num_timeout=REQUEUES)
    try:
        executor.update_parameters(**settings)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--slurm: {error}") from error
    check_queue(str(settings["job_name"]))
    return lambda unfinished: run_on(executor, unfinished, options.tries)


def run_on(executor: Any, unfinished: Sequence[Job], tries: int) -> None:
    """Submits jobs as one array, waits for them, and submits those again that go on. executor: of submitit."""
    with executor.batch():
        submitted = [executor.submit(Resumed(job, tries)) for job in unfinished]
    under_way = [(job, jobs.written_at(job.folder), each) for job, each in zip(unfinished, submitted, strict=True)]
    console.say(f"{len(under_way)} runs submitted to {type(executor).__name__}")
    while under_way:
        time.sleep(POLL)
        if stop.asked():
            for _, _, each in under_way:
                each.cancel(check=False)
        stop.check()
        for entry in [entry for entry in under_way if entry[2].done()]:
            job, before, each = entry
            under_way.remove(entry)
            if jobs.goes_on(jobs.ended_elsewhere(job.folder, before, f"slurm: {each.state}"), tries):
                under_way.append((job, jobs.written_at(job.folder), executor.submit(Resumed(job, tries))))


def read_options(texts: Sequence[str]) -> dict[str, int | str]:
    """The options of --slurm=key=value."""
    return dict(map(read_option, texts))


def read_option(text: str) -> tuple[str, int | str]:
    """(key, value) of --slurm=key=value; time in minutes, whole numbers as such."""
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        raise UsageError(f"--slurm={text}: give key=value, such as partition=gpu")
    if key == "time":
        return key, minutes(value)
    return key, int(value) if value.isdecimal() else value


def minutes(text: str) -> int:
    """Minutes of sbatch's times: 30 of "30", "30:00" and "00:30:00", 1470 of "1-00:30"; a part of one counts whole."""
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text):
        raise UsageError(f"--slurm=time={text}: give minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS")
    days, _, clock = text.rpartition("-")
    parts = [int(each) for each in clock.split(":")]
    hours, whole, seconds = (parts + [0, 0])[:3] if days or len(parts) == 3 else [0, *(parts + [0])[:2]]
    return 1440 * int(days or 0) + 60 * hours + whole + -(-seconds // 60)


def job_name(folder: Path) -> str:
    """The name of a sweep's jobs in the queue."""
    return f"sweep-{zlib.crc32(str(folder).encode(errors='backslashreplace')):08x}"


def check_queue(name: str) -> None:
    """Raises UsageError if jobs of this sweep are in the queue still, as after a driver that was killed."""
    try:
        words = ["squeue", "--noheader", "--me", f"--name={name}"]
        queued = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.split("\n")
    except (OSError, subprocess.TimeoutExpired):
        return
    count = sum(bool(line.strip()) for line in queued)
    if count:
        raise UsageError(f"{count} jobs of this sweep are in the queue: wait, or end them with scancel --name={name}")
