"""Several batched environments as one, their rows one after the other: a pool for each member of a population."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from wmjax.types import Step


class JoinedVecEnv:
    """VecEnvs of the same spec as one VecEnv; see `wmjax.envs.VecEnv`. Each keeps its own seed, and has a thread."""

    def __init__(self, envs: list[Any]):
        self._envs, self.spec = envs, envs[0].spec
        self._threads = ThreadPoolExecutor(len(envs))

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return join([env.reset() for env in self._envs])

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision in every row, action [sum of rows, A]."""
        parts = np.split(action, len(self._envs))
        return join(list(self._threads.map(lambda env, part: env.step(part), self._envs, parts)))

    def snapshot(self) -> dict[str, Any]:
        """Returns the snapshot of each."""
        return {str(index): env.snapshot() for index, env in enumerate(self._envs)}

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Restores each; returns the Step that was current."""
        return join([env.restore(snapshot[str(index)]) for index, env in enumerate(self._envs)])

    def close(self) -> None:
        """Closes each."""
        self._threads.shutdown()
        for env in self._envs:
            env.close()


def join(steps: list[Step]) -> Step:
    """The Step of all rows, those of the first one first."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *steps)
