"""Longer actions than an environment takes, so that one agent plays tasks with unequal ones (PlaNet, section 5).

    agent      [ a0 a1 a2 a3 a4 a5 ]
    cartpole   [ a0 ]                 decides
    record     [ a0  0  0  0  0  0 ]  Step.prev_action

What an environment does not take is recorded as zeros, whatever was asked for: of such a task a model sees constant
zeros there, and the weights behind them get no gradient from it.
"""

import dataclasses
from typing import Any

import numpy as np

from wmjax.envs.check import check_action
from wmjax.types import Step, UsageError


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
        self.spec = env.spec._replace(action=env.spec.action._replace(size=size))

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return self._recorded(self._env.reset())

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision in every row, action [E, size]."""
        action = check_action(action, len(action), self.spec.action)
        return self._recorded(self._env.step(action[:, : self._taken]))

    def snapshot(self) -> dict[str, Any]:
        """Returns the environment's own snapshot."""
        return self._env.snapshot()

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot."""
        return self._recorded(self._env.restore(snapshot))

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _recorded(self, step: Step) -> Step:
        """The Step with zeros behind its action."""
        zeros = np.zeros((len(step.prev_action), self.spec.action.size - self._taken), np.float32)
        return dataclasses.replace(step, prev_action=np.concatenate([step.prev_action, zeros], axis=1))
