"""Longer actions than an environment takes, so that one agent plays tasks with unequal ones (PlaNet, section 5).

    agent      [ a0 a1 a2 a3 a4 a5 ]
    cartpole   [ a0 ]                 decides
    record     [ a0 a1 a2 a3 a4 a5 ]  Step.prev_action; zeros where is_first

The numbers that an environment does not take are recorded as the agent chose them, so that a model learns that they do
nothing there. A planner does not know the task and proposes such actions: if zeros were recorded in their place, its
candidates would be unlike everything that the model has seen in that task.
"""

import dataclasses
from typing import Any

import numpy as np

from wmjax.envs.check import check_action
from wmjax.types import Step, UsageError

PADDING = "padding"  # its name in a snapshot


def pad(env: Any, size: int) -> Any:
    """A VecEnv that takes actions [E, size] and passes the first of them on; `env` itself where it takes that many.

    Raises:
        UsageError: discrete actions, or fewer than `env` takes.
    """
    action = env.spec.action
    if action.size == size:
        return env
    if action.discrete or action.size > size:
        raise UsageError(
            f"{'discrete ' if action.discrete else ''}actions of size {action.size} are not padded to {size}"
        )
    return PaddedVecEnv(env, size)


class PaddedVecEnv:
    """A VecEnv behind longer actions; see `wmjax.envs.VecEnv` and `pad`. Attributes: spec, an EnvSpec."""

    def __init__(self, env: Any, size: int):
        self._env, self._taken = env, env.spec.action.size
        self._rest = np.zeros((0, size - self._taken), np.float32)  # of the newest actions: what is not taken [E, ...]
        self.spec = env.spec._replace(action=env.spec.action._replace(size=size))

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return self._recorded(self._env.reset(), None)

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision in every row, action [E, size]."""
        action = check_action(action, len(action), self.spec.action)
        return self._recorded(self._env.step(action[:, : self._taken]), action[:, self._taken :])

    def snapshot(self) -> dict[str, Any]:
        """Returns the environment's own snapshot, and what it did not take of the newest actions."""
        return self._env.snapshot() | {PADDING: self._rest.copy()}

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot."""
        unpadded = {name: value for name, value in snapshot.items() if name != PADDING}
        return self._recorded(self._env.restore(unpadded), np.asarray(snapshot[PADDING]))

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _recorded(self, step: Step, rest: np.ndarray | None) -> Step:
        """The Step with `rest`, [E, size - taken] or None, behind its action; zeros where an episode begins."""
        shape = (len(step.prev_action), self.spec.action.size - self._taken)
        none = np.zeros(shape, np.float32)
        self._rest = none if rest is None else np.where(step.is_first[:, None], none, rest)
        return dataclasses.replace(step, prev_action=np.concatenate([step.prev_action, self._rest], axis=1))
