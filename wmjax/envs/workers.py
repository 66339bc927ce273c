"""The rows of a pool in processes of their own, each with a share of them: for environments that take long to step.

A worker holds the VecEnv of its share, which depends on the seeds of its rows alone, so that steps and snapshots are
those of one process, whatever the number of workers. A worker ends when its pool is closed, or when the process that
made it is gone.

A worker fails where an environment raises in a reset or a decision or shows what the adapter refuses, where it dies, or
where it takes too long. What it raised is raised here, unless failures are allowed. Then it is killed, and another
takes its place:

    its rows            this Step                                           the next Step
    go on               the last obs, reward 0, discount 1, is_last: cut    is_first, the next episode
    begin an episode    is_first, the episode after that one                goes on

Rows of other workers are not touched. Failures are counted in the snapshot, so that a resumed run goes on counting.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax
import numpy as np

from wmjax import console
from wmjax.envs import snapshots
from wmjax.envs.check import check_action, check_begun
from wmjax.envs.concatenated import join
from wmjax.types import Array, Step, UsageError

SERVE = "import sys; from wmjax.envs.workers import serve; serve(int(sys.argv[1]))"
LAST_SECONDS = 5  # for a worker to close its environments
MAKE_SECONDS = 300  # for one to import and to make them, where decisions have a limit
Answer = tuple[Exception | None, Any]  # what a worker raised, or else what it returned


class WorkersVecEnv:
    """E environments in worker processes; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec.

    Args of the class:
        make: function (name, seeds, options) -> AdaptedVecEnv of a share, of a module, and called in every worker.
        name, options: its arguments.
        seeds: of all rows.
        workers: processes, at most one for each row.
        seconds: that a worker may take for a reset or a decision; 0: any.
        failures: of workers that the pool goes on after.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        name: str,
        seeds: Sequence[int],
        options: dict[str, Any],
        workers: int,
        *,
        seconds: float = 0.0,
        failures: int = 0,
    ) -> None:
        shares = np.array_split(np.array(seeds), min(workers, len(seeds)))
        self._made = [(make, name, share.tolist(), options) for share in shares]
        first = np.cumsum([0, *map(len, shares)])
        self._rows = [slice(*pair) for pair in itertools.pairwise(first.tolist())]  # of each worker
        self._num_envs, self._seconds, self._allowed = len(seeds), seconds or None, failures
        self._episodes = np.zeros(len(seeds), np.int64)  # begun by each row
        self._failures = np.zeros(len(seeds), np.int64)  # of the worker that each row is the first of
        self._last: Step | None = None  # what the rows showed last
        self._whole = True
        self._workers: list[tuple[subprocess.Popen, Connection]] = []
        self._start()

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return self._play("reset", [()] * len(self._rows), dict(cut=np.zeros(self._num_envs, bool)))

    def step(self, action: Array) -> Step:
        """Takes one decision in every row that goes on; begins an episode in the others."""
        check_begun(self._last is not None, "step")
        action = check_action(action, self._num_envs, self.spec.action)
        where = dict(cut=~self._last.is_last, seen=self._last.obs, actions=action[None])
        return self._play("step", [(action[rows],) for rows in self._rows], where)

    def snapshot(self) -> dict[str, Any]:
        """Returns the snapshot of a pool that has these rows in one process."""
        check_begun(self._last is not None, "snapshot")
        return snapshots.join(self._ask("snapshot", [()] * len(self._rows)))

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Restores all rows; after an error of one of them in new workers. Rows that fail at it are cut."""
        if not self._whole:
            self._start()
        self._use()
        self._episodes = np.array(snapshot["episodes"])
        self._failures = np.array(snapshot.get("failures", np.zeros_like(self._episodes)))
        limit = self._seconds and MAKE_SECONDS + self._seconds * (1 + len(snapshot["actions"]))
        answers = self._answers("restore", [(share_of(snapshot, rows),) for rows in self._rows], limit)
        for error, _ in answers:
            if isinstance(error, UsageError) or (error and "seen" not in snapshot):  # of another environment, or older
                raise error
        return self._arrive(answers, snapshot | dict(cut=np.ones(self._num_envs, bool)))

    def close(self) -> None:
        """Ends the workers, which close their environments."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            try:
                process.wait(LAST_SECONDS)
            except subprocess.TimeoutExpired:
                kill(process)
        self._workers = []

    def _start(self) -> None:
        """Makes the workers and their environments, in place of those that there are."""
        self.close()
        self._workers = [start_worker() for _ in self._made]
        self._whole = True
        try:
            self.spec, *others = self._ask("make", self._made)
        except BaseException:
            self.close()
            raise
        for rows, spec in zip(self._rows[1:], others, strict=True):
            if spec != self.spec:
                self.close()
                raise UsageError(f"row {rows.start} is another environment than row 0: {spec} and {self.spec}.")

    def _play(self, call: str, arguments: Sequence[tuple], where: dict[str, Any]) -> Step:
        """The Step after a reset or a decision of all rows. where: as of `_arrive`."""
        self._use()
        self._episodes = self._episodes + ~where["cut"]
        return self._arrive(self._answers(call, arguments, self._seconds), where)

    def _arrive(self, answers: Sequence[Answer], where: dict[str, Any]) -> Step:
        """The Step of all rows, from what their workers answered.

        where: the rows of one that failed are to stand: cut, seen and actions of a snapshot.
        """
        steps = []
        for index, (error, step) in enumerate(answers):
            while error is not None:
                self._count(index, error)
                error, step = self._begin_again(index, where)
            steps.append(step)
        self._whole = True
        self._last = join(steps)
        return jax.tree.map(np.copy, self._last)

    def _count(self, index: int, error: Exception) -> None:
        """Counts the failure of a worker and warns of it; raises it where no more are allowed."""
        left, rows = self._allowed - self._failures.sum(), self._rows[index]
        if left <= 0:
            raise error
        self._failures[rows.start] += 1
        console.warn(
            f"warning: rows {rows.start} to {rows.stop - 1} failed, {type(error).__name__}: "
            f"{' '.join(str(error).split()).rstrip('.')}; their episodes are cut, {left - 1} more failures are allowed"
        )

    def _begin_again(self, index: int, where: dict[str, Any]) -> Answer:
        """What another worker answers in a failed one's place. where: as of `_arrive`."""
        rows, (process, connection) = self._rows[index], self._workers[index]
        kill(process)
        connection.close()
        self._workers[index] = start_worker()
        self._send(index, "make", self._made[index])
        error, _ = self._receive(index, self._seconds and MAKE_SECONDS, time.monotonic())
        if error is not None:
            return error, None
        self._episodes[rows] += ~where["cut"][rows]  # the one before may be why it failed
        self._send(index, "stand", (share_of(where | dict(episodes=self._episodes, failures=self._failures), rows),))
        return self._receive(index, self._seconds, time.monotonic())

    def _use(self) -> None:
        """Raises UsageError where rows no longer belong together; marks them so until all workers have answered."""
        if not self._whole:
            raise UsageError(
                "an environment raised an error, or died, in the middle of a decision: restore() a snapshot"
            )
        self._whole = False

    def _ask(self, call: str, arguments: Sequence[tuple]) -> list[Any]:
        """What every worker answers to a call; raises what one of them raised, and from then on until `restore`."""
        self._use()
        answers = self._answers(call, arguments, self._seconds and MAKE_SECONDS)
        for error, _ in answers:
            if error is not None:
                raise error
        self._whole = True
        return [answer for _, answer in answers]

    def _answers(self, call: str, arguments: Sequence[tuple], seconds: float | None) -> list[Answer]:
        """What all workers answer to a call."""
        for index, share in enumerate(arguments):
            self._send(index, call, share)
        since = time.monotonic()
        return [self._receive(index, seconds, since) for index in range(len(arguments))]

    def _send(self, index: int, call: str, arguments: tuple) -> None:
        """Asks one worker."""
        with contextlib.suppress(OSError):  # it is gone, which `_receive` finds out
            self._workers[index][1].send((call, arguments))

    def _receive(self, index: int, seconds: float | None, since: float) -> Answer:
        """What one worker answers; the error says so where it is dead, or late. seconds: None: any; since: when."""
        process, connection = self._workers[index]
        name = f"the worker of rows {self._rows[index].start} to {self._rows[index].stop - 1}"
        try:
            if connection.poll(None if seconds is None else max(0, since + seconds - time.monotonic())):
                return connection.recv()
        except (EOFError, OSError):
            return RuntimeError(f"{name} ended with exit code {process.wait()}"), None
        return RuntimeError(f"{name} gave no answer within {seconds:g} seconds"), None


def share_of(snapshot: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The snapshot of some rows."""
    return snapshots.rows_of(snapshot, rows.start, rows.stop - rows.start)


def start_worker() -> tuple[subprocess.Popen, Connection]:
    """A process that runs `serve`, and the connection to it."""
    here, there = multiprocessing.Pipe()
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    environment = os.environ | dict(PYTHONPATH=path, JAX_PLATFORMS="cpu")
    words = [sys.executable, "-c", SERVE, str(there.fileno())]
    # In a session of its own, so that Ctrl-C does not reach it.
    process = subprocess.Popen(
        words, env=environment, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
    )
    there.close()
    return process, here


def kill(process: subprocess.Popen) -> None:
    """Ends a worker, if it lives, and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own
    process.wait()


def serve(descriptor: int) -> None:
    """Answers calls until the other end is closed. descriptor: of the connection."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # they are for the process that asks
    connection, env = Connection(descriptor), None
    while True:
        try:
            call, arguments = connection.recv()
        except EOFError:
            break
        error, answer = None, None
        try:
            if call == "make":
                make, *rest = arguments
                env = make(*rest)
                answer = env.spec
            else:
                answer = getattr(env, call)(*arguments)
        except Exception as raised:
            error = sendable(raised)
        connection.send((error, answer))
    if env is not None:
        env.close()


def sendable(error: Exception) -> Exception:
    """The error, with where it was raised as a note; a RuntimeError of its text where it cannot be sent."""
    trace = traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker:\n{trace}")
    return error
