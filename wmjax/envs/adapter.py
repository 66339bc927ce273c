"""Puts a user's own gymnasium or dm_env environments behind the door `wmjax.envs.VecEnv`.

    env = wmjax.envs.adapt(lambda seed: MyEnv(seed), num_envs=4, seed=0)

Neither package is imported: an environment with `action_spec` is taken for a dm_env one, one with `action_space` for
a gymnasium one. The rows run one after the other in this process.

What is asked of an environment: it is a function of its seed and its actions, for `restore` makes all environments
again and replays every action since they were made, so that a snapshot grows with the run; its actions are one
continuous vector or one integer; it shows an image, uint8 [X, Y, C] or [X, Y], as its observation, or under the key
"pixels" of its observation, or through `render`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from wmjax.envs.check import check_action
from wmjax.envs.seeds import row_seeds
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError


class _Arrival(NamedTuple):
    """What one row arrived at: its image uint8 [X, Y, C], reward, discount (0 or 1) and whether the episode ended."""

    obs: np.ndarray
    reward: float
    discount: float
    is_last: bool


def adapt(
    make_env: Callable[[int], Any],
    num_envs: int,
    seed: int,
    *,
    purpose: str = "train",
    render: Callable[[Any], np.ndarray] | None = None,
) -> "AdaptedVecEnv":
    """Makes a VecEnv of `num_envs` environments of the user's own.

    Args:
        make_env: makes one environment from an integer seed. A gymnasium one is given that seed at its first reset too.
        num_envs: rows E, 1 to 1024.
        seed, purpose: as of `wmjax.envs.make`; every row gets a seed of its own, made of both.
        render: environment -> uint8 [X, Y, C]; None when the observation is the image.

    Raises:
        UsageError: an environment of neither kind, or one whose actions or observations are not as asked above.
    """
    return AdaptedVecEnv(make_env, row_seeds(seed, num_envs, purpose), render)


class AdaptedVecEnv:
    """E environments of a user's own, one after the other; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec.

    Actions of `spec` are in [-1, 1] and are stretched to the environment's own bounds where it has bounds.
    """

    def __init__(self, make_env, seeds: list[int], render):
        self._make_env, self._num_envs, self._seeds, self._render = make_env, len(seeds), seeds, render
        self._make_rows()
        action, self._low, self._high = _read_action_spec(self._envs[0])
        self.spec = EnvSpec(self._begin(0).obs.shape, np.dtype(np.uint8), action)
        self.close()
        self._make_rows()  # looking at an image's shape began an episode: start afresh

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return self._advance(self._zeros(), is_reset=True)

    def step(self, action) -> Step:
        """Takes one decision in every row that goes on; begins an episode in the others."""
        if not self._history:
            raise UsageError("step() was called before reset().")
        return self._advance(check_action(action, self._num_envs, self.spec.action), is_reset=False)

    def close(self) -> None:
        """Closes every environment that has a `close`."""
        for env in self._envs:
            getattr(env, "close", lambda: None)()

    def snapshot(self) -> dict[str, Any]:
        """Returns the rows' seeds [E] and everything done so far: actions [T, E, ...] and is_reset, bool [T]."""
        if not self._history:
            raise UsageError("snapshot() was called before reset().")
        actions, is_reset = zip(*self._history, strict=True)
        return {"seeds": np.array(self._seeds), "actions": np.array(actions), "is_reset": np.array(is_reset)}

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Makes all environments again and replays a snapshot."""
        actions = np.asarray(snapshot["actions"])
        if not np.array_equal(snapshot.get("seeds"), self._seeds) or actions.shape[1:] != self._zeros().shape:
            raise UsageError("this snapshot is of another environment: num_envs, seed or the actions differ.")
        self.close()
        self._make_rows()
        for action, is_reset in zip(actions, snapshot["is_reset"], strict=True):
            step = self._advance(action, is_reset=bool(is_reset))
        return step

    def _make_rows(self) -> None:
        """Makes the environments and forgets the history."""
        self._envs = [self._make_env(seed) for seed in self._seeds]
        self._begun = np.zeros(self._num_envs, bool)
        self._is_last = np.zeros(self._num_envs, bool)
        self._history = []  # of (action [E, A] or [E], is_reset)

    def _zeros(self) -> np.ndarray:
        """Returns the action of a row that only just began, for every row."""
        if self.spec.action.discrete:
            return np.zeros(self._num_envs, np.int32)
        return np.zeros((self._num_envs, self.spec.action.size), np.float32)

    def _advance(self, action: np.ndarray, *, is_reset: bool) -> Step:
        """Begins an episode in the rows that need one, takes a decision in the others."""
        self._history.append((action, is_reset))
        is_first = self._is_last | is_reset
        rows = [self._begin(row) if first else self._decide(row, action[row]) for row, first in enumerate(is_first)]
        obs, reward, discount, is_last = (np.array(field) for field in zip(*rows, strict=True))
        self._is_last = is_last
        mask = is_first if self.spec.action.discrete else is_first[:, None]
        prev_action = np.where(mask, self._zeros(), action)
        return Step(prev_action, obs, reward.astype(np.float32), discount.astype(np.float32), is_first, is_last.copy())

    def _begin(self, row: int) -> _Arrival:
        """Begins an episode in one row."""
        env = self._envs[row]
        if hasattr(env, "action_spec"):
            obs = env.reset().observation
        else:
            obs, _ = env.reset() if self._begun[row] else env.reset(seed=self._seeds[row])
        self._begun[row] = True
        return _Arrival(_read_image(env, obs, self._render), 0.0, 1.0, False)

    def _decide(self, row: int, action: np.ndarray) -> _Arrival:
        """Takes one decision in one row."""
        env = self._envs[row]
        if self.spec.action.discrete:
            control = int(self._low + action)
        else:
            control = (self._low + (action + 1) / 2 * (self._high - self._low)).astype(self._low.dtype)
        if hasattr(env, "action_spec"):
            arrival = env.step(control)
            obs, reward, terminated, last = arrival.observation, arrival.reward, arrival.discount == 0, arrival.last()
        else:
            obs, reward, terminated, truncated, _ = env.step(control)
            last = terminated or truncated
        discount = 0.0 if last and terminated else 1.0
        return _Arrival(_read_image(env, obs, self._render), float(reward or 0), discount, bool(last))


def _read_action_spec(env: Any) -> tuple[ActionSpec, Any, Any]:
    """Returns (ActionSpec, low, high) of a dm_env or gymnasium environment; low and high are the environment's own."""
    if hasattr(env, "action_spec"):
        spec = env.action_spec()
        count, low, high = getattr(spec, "num_values", None), spec.minimum, spec.maximum
    elif hasattr(env, "action_space"):
        spec = env.action_space
        count = getattr(spec, "n", None)
        low, high = (getattr(spec, "start", 0), None) if count is not None else (spec.low, spec.high)
    else:
        raise UsageError(f"{type(env).__name__} is neither a dm_env nor a gymnasium environment.")
    if count is not None:
        return ActionSpec(int(count), True, 0, int(count) - 1), int(low), high
    if len(spec.shape) != 1:
        raise UsageError(f"actions of shape {tuple(spec.shape)} are not supported: expected one vector or one integer.")
    dtype = np.result_type(spec.dtype, np.float32)
    low, high = (np.broadcast_to(np.asarray(bound, dtype), spec.shape) for bound in (low, high))
    bounded = (np.abs(low) < 1e9) & (np.abs(high) < 1e9)  # MuJoCo writes 1e10 for a control without limits
    low, high = np.where(bounded, low, -1).astype(dtype), np.where(bounded, high, 1).astype(dtype)
    return ActionSpec(spec.shape[0], False, -1.0, 1.0), low, high


def _read_image(env: Any, obs: Any, render: Callable[[Any], np.ndarray] | None) -> np.ndarray:
    """Returns the image of one row, uint8 [X, Y, C], as a copy."""
    if render is not None:
        obs = render(env)
    elif hasattr(obs, "keys"):
        obs = obs["pixels"] if "pixels" in obs else None
    image = np.array(obs)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise UsageError(
            f"{type(env).__name__} shows {image.dtype} {image.shape}: expected an image, uint8 [X, Y, C] or [X, Y]; "
            "pass render=function(environment)."
        )
    return image if image.ndim == 3 else image[..., None]
