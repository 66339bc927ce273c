"""Runs as processes of their own: a queue of slots, a ledger of how each ended, and what an exit code decides.

    0        done                              75      saved: goes on at once, not counted as a try
    2, 3     never again                       others  again, until the tries are used up

Beside the folder of a run are its log, FOLDER.log, and FOLDER.exit.json. The log is locked as long as the process that
writes it lives, so a run whose driver was killed is waited for, not started twice.
"""

import collections
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from wmjax import console
from wmjax.report.artifacts import SUMMARY
from wmjax.report.progress import duration
from wmjax.run import stop
from wmjax.run.cli import GO_ON, NOT_FINITE
from wmjax.storage import files, workdir

NEVER_AGAIN = (2, NOT_FINITE)
VANISHED = 1  # exit code of a run of whose end nothing is known, as of a machine that died
POLL = 0.05  # seconds
LAST_LINE = 300  # characters kept of it
MEMORY = 0.9  # of a GPU that several runs share
# As FAST_MALLOC in the Makefile, where the reasons are.
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_TOP_PAD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "17179869184",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}


class Job(NamedTuple):
    """A run: its working folder and the words that start it or resume it."""

    folder: Path
    command: Sequence[str]


class Slot(NamedTuple):
    """Where one run at a time computes."""

    prefix: Sequence[str]  # words before its command
    environment: Mapping[str, str]  # added to the user's, whose values win except for CUDA_VISIBLE_DEVICES
    label: str  # in words


class Ended(NamedTuple):
    """exit.json: how a run ended the last time."""

    code: int  # 128 + its number for a signal, as shells say it
    last: str  # line of its output
    tries: int  # that failed, in all


class Work(NamedTuple):
    """A job in a slot. process: None while another process works on the same run."""

    job: Job
    slot: Slot
    log: IO[bytes]
    process: subprocess.Popen | None
    begun: float
    offset: int  # where its output begins in the log


def training(main: str, folder: str | Path, config: str, settings: Sequence[str]) -> Job:
    """The Job of a training main.

    Args: main: module, such as experiments.planet; config: "FILE:ARGUMENT"; settings: "model.channels=8", ...
    """
    words = [sys.executable, "-m", main, f"--workdir={folder}", f"--config={config}"]
    return Job(Path(folder), [*words, *(f"--config.{setting}" for setting in settings)])


def make_slots(count: int, cores: Sequence[int], gpus: Sequence[str] = (), per_gpu: int = 1) -> list[Slot]:
    """`count` slots that share cores evenly, and GPUs, `per_gpu` slots on each; fewer where the GPUs hold fewer."""
    slots, count = [], min(count, len(gpus) * per_gpu) if gpus else count
    for index in range(count):
        first, after = index * len(cores) // count, (index + 1) * len(cores) // count
        share = ",".join(map(str, cores[first:after] or [cores[index % len(cores)]]))
        prefix = ("taskset", "-c", share) if shutil.which("taskset") else ()
        environment, label = dict(ALLOCATOR), f"cores {share}"
        if gpus:
            gpu = gpus[index % len(gpus)]
            environment["CUDA_VISIBLE_DEVICES"], label = gpu, f"GPU {gpu}, cores {share}"
            environment |= share_of_gpu(per_gpu)
        slots.append(Slot(prefix, environment, label))
    return slots


def share_of_gpu(per_gpu: int) -> dict[str, str]:
    """Variables of a run that shares its GPU with others."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY / per_gpu:.3f}"} if per_gpu > 1 else {}


def allowed_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that runs may use, without asking jax, which would take their memory; [] on a CPU."""
    if environment.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("cuda", "gpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [gpu for gpu in environment["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(index) for index, line in enumerate(x for x in listed.splitlines() if x.startswith("GPU "))]


def shell(job: Job, slot: Slot) -> str:
    """The line that does in a shell what `run_all` does in this slot, the log aside."""
    wanted = [f"{name}={value}" for name, value in _added(slot, os.environ).items()]
    return shlex.join([*(["env", *wanted] if wanted else []), *slot.prefix, *job.command])


def log_of(folder: Path) -> Path:
    """What the processes of a run printed, one after the other."""
    return folder.with_name(f"{folder.name}.log")


def exit_of(folder: Path) -> Path:
    """Where `read_ended` reads."""
    return folder.with_name(f"{folder.name}.exit.json")


def read_ended(folder: Path) -> Ended | None:
    """How a run ended the last time; None if that is not known."""
    try:
        return Ended(**json.loads(exit_of(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_ended(folder: Path, ended: Ended) -> None:
    """Notes how a run ended."""
    files.atomic_write(exit_of(folder), json.dumps(ended._asdict()) + "\n")


def written_at(folder: Path) -> int:
    """When it was noted how a run ended; 0: never. In nanoseconds, to compare."""
    try:
        return exit_of(folder).stat().st_mtime_ns
    except OSError:
        return 0


def ended_elsewhere(folder: Path, before: int, why: str) -> Ended:
    """Tells how a run ended on another machine; where that machine did not note it, a try that failed is noted.

    Args: before: `written_at` as the run began there; why: what is known of an end that was not noted.
    """
    ended = read_ended(folder)
    if ended is None or written_at(folder) == before:
        ended = Ended(VANISHED, why, (ended.tries if ended else 0) + 1)
        write_ended(folder, ended)
    console.say(f"{folder}: exit code {ended.code}: {ended.last}")
    return ended


def forget(folder: Path) -> None:
    """Forgets how a run ended, so that its tries count from 0 again."""
    exit_of(folder).unlink(missing_ok=True)


def state(folder: Path, tries: int) -> str:
    """A run in one word: running, done, failed, stopped (saved, goes on), again (failed, has tries left), waiting."""
    if workdir.is_running_elsewhere(folder) or files.is_locked(log_of(folder)):
        return "running"
    ended = read_ended(folder)
    if ended is None or ended.code == 0:
        return "done" if _finished(folder) else "waiting"
    if ended.code == GO_ON:
        return "stopped"
    return "again" if goes_on(ended, tries) else "failed"


def goes_on(ended: Ended, tries: int) -> bool:
    """Whether a run that ended so is started again."""
    return ended.code == GO_ON or (ended.code not in (0, *NEVER_AGAIN) and ended.tries < tries)


def run_all(jobs: Iterable[Job], slots: Sequence[Slot], tries: int) -> Generator[tuple[Job, Ended], None, None]:
    """Runs every job to its end, as many at a time as there are slots, and yields each that is not started again.

    What is still running when the iterator is closed, or when a signal comes after `stop.listen`, is asked once to save
    and end, and waited for.

    Raises: stop.Stopped: a signal came.
    """
    waiting, free = collections.deque(jobs), list(slots)
    working: list[Work] = []
    try:
        while (waiting or working) and not stop.asked():
            while waiting and free:
                working.append(_begin(waiting.popleft(), free.pop(0)))
            time.sleep(POLL)
            working = [work if work.process else _begin(*work[:3]) for work in working]
            for work in [work for work in working if work.process and work.process.poll() is not None]:
                working.remove(work)
                free.append(work.slot)
                ended = _end(work)
                if goes_on(ended, tries):
                    waiting.append(work.job)
                else:
                    yield work.job, ended
    finally:
        running = [(work, work.process) for work in working if work.process]
        for _, process in running:
            process.terminate()
        for work, process in running:
            process.wait()
            _end(work)
    stop.check()


def _begin(job: Job, slot: Slot, log: IO[bytes] | None = None) -> Work:
    """Starts a job, unless another process works on it."""
    log_of(job.folder).parent.mkdir(parents=True, exist_ok=True)
    waited = log is not None
    log = log or open(log_of(job.folder), "ab")  # noqa: SIM115  the job's own from here on
    if workdir.is_running_elsewhere(job.folder) or files.lock(log) is False:
        if not waited:
            console.say(f"{job.folder}: another process works on it: waiting")
        return Work(job, slot, log, None, 0.0, 0)
    log.write(f"$ {shell(job, slot)}\n".encode(errors="backslashreplace"))
    log.flush()
    offset, environment = log.tell(), os.environ | _added(slot, os.environ)
    words = [*slot.prefix, *job.command]
    # In a group of its own, so that Ctrl-C reaches it once, from here.
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0
    )
    console.say(f"{job.folder}: started on {slot.label}")
    return Work(job, slot, log, process, time.monotonic(), offset)


def _end(work: Work) -> Ended:
    """Notes how a job ended."""
    assert work.process is not None
    code, folder = work.process.returncode, work.job.folder
    code = 128 - code if code < 0 else code
    before = read_ended(folder)
    counted = (before.tries if before else 0) + (code not in (0, GO_ON))
    ended = Ended(code, _last_line(log_of(folder), work.offset), counted)
    write_ended(folder, ended)
    work.log.close()
    took, why = duration(time.monotonic() - work.begun), f": {ended.last}" if code else ""
    console.say(f"{folder}: exit code {code} after {took}{why}")
    return ended


def _added(slot: Slot, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a slot adds to the user's environment."""
    always = ("CUDA_VISIBLE_DEVICES",)
    return {name: value for name, value in slot.environment.items() if name in always or name not in environment}


def _finished(folder: Path) -> bool:
    """Whether a run says of itself that its plan is done."""
    try:
        return bool(json.loads((folder / SUMMARY).read_text()).get("finished", True))
    except (OSError, ValueError, AttributeError):
        return False


def _last_line(log: Path, offset: int) -> str:
    """The last line with something in it that was printed after `offset`."""
    with open(log, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(offset, file.tell() - 10_000))
        printed = file.read().decode(errors="backslashreplace").replace("\r", "\n").replace("\x1b[2K", "")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return lines[-1][:LAST_LINE] if lines else ""
