"""Tiny exact environments for tests of planners, actors and mains: no packages, no rendering, known optimum.

"fake:counter"       a point in [-4, 4]^A that moves by the action: state += clip(action, -1, 1), once a control step.
                     reward = 1 - mean |state|, so the best action is clip(-state, -1, 1) and the best reward is 1.
                     Episodes end by time limit only (discount 1).
"fake:terminating"   the same, and the episode truly ends (discount 0) when the first coordinate reaches -4 or 4.

The image shows the state: one bright square for every two coordinates (row, column), drawn in the red, green and
blue channel in this order; a coordinate without a partner has the centre as its column.

    -4 +-----------+     state (0, 2): a square in the middle row, three quarters to the right
       |           |
     0 |       ##  |
       |           |
     4 +-----------+
      -4     0     4

Every episode starts anywhere in [-2, 2]^A, drawn from (the row's seed, number of the episode).

Options of `make("fake:...", num_envs, seed, ...)`: action_repeat (1), size (16), episode_steps in control steps (12),
action_size A, 1 to 6 (2), observe (image): image+state shows {"image": ..., "state": float32 [E, A]}.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.envs import snapshots
from wmjax.envs.check import (
    check_action,
    check_begun,
    check_int,
    check_name,
    check_options,
    identity_of,
)
from wmjax.types import ActionSpec, EnvSpec, Step

EDGE = 4.0
START = 2.0
TASKS = ("counter", "terminating")
OBSERVED = ("image", "image+state")


class FakeOptions(NamedTuple):
    """See the module's text."""

    action_repeat: int = 1
    size: int = 16
    episode_steps: int = 12
    action_size: int = 2
    observe: str = "image"


def make(task: str, seeds: list[int], options: dict[str, Any]) -> "FakeVecEnv":
    """Makes a FakeVecEnv. Raises UsageError: unknown task or option, or a value out of range."""
    check_name("fake task", task, TASKS)
    options = check_options("fake", options, FakeOptions)
    check_int("action_repeat", options.action_repeat, low=1, high=100)
    check_int("size", options.size, low=8, high=256)
    check_int("episode_steps", options.episode_steps, low=1, high=1_000_000)
    check_int("action_size", options.action_size, low=1, high=6)
    check_name("observe", options.observe, OBSERVED)
    return FakeVecEnv(task, seeds, options)


class FakeVecEnv:
    """E fake environments; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec; options, FakeOptions."""

    def __init__(self, task: str, seeds: list[int], options: FakeOptions):
        self._terminates, self._num_envs, self._seeds, self.options = task == "terminating", len(seeds), seeds, options
        self._identity = identity_of(task, seeds, tuple(options))
        self._position = np.zeros((len(seeds), options.action_size))
        self._elapsed = np.zeros(len(seeds), np.int32)  # control steps
        self._episodes = np.zeros(len(seeds), np.int32)
        self._step: Step | None = None
        action = ActionSpec(options.action_size, False, -1.0, 1.0)
        limit = -(-options.episode_steps // options.action_repeat)
        size = options.size
        obs = jax.ShapeDtypeStruct((size, size, 3), np.uint8)
        if options.observe == "image+state":
            obs = dict(image=obs, state=jax.ShapeDtypeStruct((options.action_size,), np.float32))
        self.spec = EnvSpec(obs, action, options.action_repeat, limit)

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        self._begin(np.ones(self._num_envs, bool))
        zeros = np.zeros((self._num_envs, self.options.action_size), np.float32)
        return self._arrive(zeros, *self._nothing(), is_first=True, is_last=False)

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision, float32 [E, A] in [-1, 1], in every row that goes on; begins an episode in the others."""
        check_begun(self._step is not None, "step")
        action = check_action(action, self._num_envs, self.spec.action)
        is_first = np.array(self._step.is_last)
        self._begin(is_first)
        reward, discount = self._nothing()
        ended = is_first.copy()
        for _ in range(self.options.action_repeat):
            going = ~ended
            moved = np.clip(self._position + action, -EDGE, EDGE)
            self._position = np.where(going[:, None], moved, self._position)
            self._elapsed += going
            reward += np.where(going, 1 - np.abs(self._position).mean(axis=-1), 0).astype(np.float32)
            fell = going & self._terminates & (np.abs(self._position[:, 0]) >= EDGE)
            discount[fell] = 0
            ended |= fell | (self._elapsed >= self.options.episode_steps)
        prev_action = np.where(is_first[:, None], np.float32(0), action)
        return self._arrive(prev_action, reward, discount, is_first=is_first, is_last=ended & ~is_first)

    def close(self) -> None:
        """Does nothing."""

    def snapshot(self) -> dict[str, Any]:
        """Returns the state: identity (int), position [E, A], elapsed [E], episodes [E], the last Step without obs."""
        state = dict(position=self._position, elapsed=self._elapsed, episodes=self._episodes)
        return snapshots.take(self._identity, state, self._step)

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot."""
        arrays = snapshots.arrays_of(snapshot, self._identity, "position", "elapsed", "episodes")
        self._position, self._elapsed, self._episodes = arrays
        self._step = snapshots.step_of(snapshot, self._see())
        return self._copy()

    def _begin(self, rows: np.ndarray) -> None:
        """Begins an episode where bool [E] `rows` is set."""
        self._elapsed[rows] = 0
        self._episodes += rows
        for row in np.flatnonzero(rows):
            rng = np.random.default_rng((self._seeds[row], self._episodes[row]))
            self._position[row] = rng.uniform(-START, START, self.options.action_size)

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the (reward, discount) of rows that only just began."""
        return np.zeros(self._num_envs, np.float32), np.ones(self._num_envs, np.float32)

    def _arrive(
        self,
        prev_action: np.ndarray,
        reward: np.ndarray,
        discount: np.ndarray,
        *,
        is_first: np.ndarray | bool,
        is_last: np.ndarray | bool,
    ) -> Step:
        """Keeps the Step, for a snapshot, and returns a copy that its user may write to."""
        rows = np.zeros(self._num_envs, bool)
        self._step = Step(prev_action, self._see(), reward, discount, rows | is_first, rows | is_last)
        return self._copy()

    def _copy(self) -> Step:
        return jax.tree.map(np.copy, self._step)

    def _see(self) -> Any:
        """Returns the observation of the present state."""
        if self.options.observe == "image":
            return self._draw()
        return dict(image=self._draw(), state=self._position.astype(np.float32))

    def _draw(self) -> np.ndarray:
        """Returns uint8 [E, size, size, 3]: one square for every two coordinates."""
        size, side = self.options.size, max(self.options.size // 5, 2)
        frames = np.full((self._num_envs, size, size, 3), 30, np.uint8)
        corner = np.rint((self._position + EDGE) / (2 * EDGE) * (size - side)).astype(int)  # [E, A]
        for row, corners in enumerate(corner):
            for channel, (x, *rest) in enumerate(corners[i : i + 2] for i in range(0, len(corners), 2)):
                y = rest[0] if rest else (size - side) // 2
                frames[row, x : x + side, y : y + side, channel] = 255
        return frames
