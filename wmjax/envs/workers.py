"""The rows of a pool in processes of their own, each with a share of them: for environments that take long to step.

A worker holds the VecEnv of its share, which depends on the seeds of its rows alone, so that steps and snapshots are
those of one process, whatever the number of workers. What an environment raises in a worker is raised here. A worker
ends when its pool is closed, or when the process that made it is gone.
"""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from wmjax.envs import snapshots
from wmjax.envs.check import check_action, check_begun
from wmjax.envs.concatenated import join
from wmjax.types import Array, Step, UsageError

SERVE = "import sys; from wmjax.envs.workers import serve; serve(int(sys.argv[1]))"
LAST_SECONDS = 5  # for a worker to close its environments


class WorkersVecEnv:
    """E environments in worker processes; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec.

    Args of the class:
        make: function (name, seeds, options) -> VecEnv of a share, of a module, and called in every worker.
        name, options: its arguments.
        seeds: of all rows.
        workers: processes, at most one for each row.
    """

    def __init__(
        self, make: Callable[..., Any], name: str, seeds: Sequence[int], options: dict[str, Any], workers: int
    ) -> None:
        shares = np.array_split(np.array(seeds), min(workers, len(seeds)))
        self._made = [(make, name, share.tolist(), options) for share in shares]
        self._first = np.cumsum([0, *map(len, shares)])  # row of each share, and E at last
        self._begun, self._whole = False, True
        self._workers: list[tuple[subprocess.Popen, Connection]] = []
        self._start()

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        self._begun = True
        return join(self._ask("reset", [()] * len(self._made)))

    def step(self, action: Array) -> Step:
        """Takes one decision in every row that goes on; begins an episode in the others."""
        check_begun(self._begun, "step")
        action = check_action(action, self._first[-1], self.spec.action)
        return join(self._ask("step", [(part,) for part in np.split(action, self._first[1:-1])]))

    def snapshot(self) -> dict[str, Any]:
        """Returns the snapshot of a pool that has these rows in one process."""
        check_begun(self._begun, "snapshot")
        return snapshots.join(self._ask("snapshot", [()] * len(self._made)))

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Restores all rows; after an error of one of them in new workers."""
        if not self._whole:
            self._start()
        counts = np.diff(self._first)
        parts = [(snapshots.rows_of(snapshot, *share),) for share in zip(self._first, counts, strict=False)]
        self._begun = True
        return join(self._ask("restore", parts))

    def close(self) -> None:
        """Ends the workers, which close their environments."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            try:
                process.wait(LAST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
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
        for first, spec in zip(self._first[1:], others, strict=False):
            if spec != self.spec:
                self.close()
                raise UsageError(f"row {first} is another environment than row 0: {spec} and {self.spec}.")

    def _ask(self, call: str, arguments: Sequence[tuple]) -> list[Any]:
        """What every worker answers to a call; raises what one of them raised, and from then on until `restore`."""
        if not self._whole:
            raise UsageError(
                "an environment raised an error, or died, in the middle of a decision: restore() a snapshot"
            )
        self._whole, failed, answers = False, None, []
        for (_, connection), own in zip(self._workers, arguments, strict=True):
            try:
                connection.send((call, own))
            except OSError:
                pass  # it is gone: the answer tells
        for index, (process, connection) in enumerate(self._workers):
            try:
                error, answer = connection.recv()
            except (EOFError, OSError):
                first, last = self._first[index], self._first[index + 1] - 1
                error = RuntimeError(f"the worker of rows {first} to {last} ended with exit code {process.wait()}")
            failed = failed or error
            answers.append(answer)
        if failed:
            raise failed
        self._whole = True
        return answers


def start_worker() -> tuple[subprocess.Popen, Connection]:
    """A process that runs `serve`, and the connection to it."""
    here, there = multiprocessing.Pipe()
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    environment = os.environ | dict(PYTHONPATH=path, JAX_PLATFORMS="cpu")
    words = [sys.executable, "-c", SERVE, str(there.fileno())]
    # In a session of its own, so that Ctrl-C does not reach it.
    process = subprocess.Popen(
        words, env=environment, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
    )
    there.close()
    return process, here


def serve(descriptor: int) -> None:
    """Answers calls until the other end is closed. descriptor: of the connection."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, lambda *_: None)  # they are for the process that asks
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
    told = traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker:\n{told}")
    return error
