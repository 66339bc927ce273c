"""Puts a user's own gymnasium or dm_env environments behind the door `wmjax.envs.VecEnv`.

    env = wmjax.envs.adapt(lambda seed: MyEnv(seed), num_envs=4, seed=0)

Neither package is imported: an environment with `action_space` is taken for a gymnasium one, one with `action_spec`
for a dm_env one, and spaces are known by the names of their classes. The rows run one after the other in this process.

What is asked of an environment: it is a function of its seed and its actions, for `restore` makes all environments
again and replays every action since they were made, so that a snapshot grows with the run; its actions are one
continuous vector or one integer; it shows an image, uint8 [X, Y, C] or [X, Y], as its observation, or under the key
"pixels" of its observation, or through `render`; all rows have the same actions and images. `adapt` tries it: it
makes all environments, begins an episode in each, takes one decision in the first, closes them and makes others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.envs.check import check_action, check_begun
from wmjax.envs.seeds import row_seeds
from wmjax.types import ActionSpec, EnvSpec, NonFiniteError, Step, UsageError

MOST_CHANNELS = 16  # an image with more channels than this, and fewer rows, has its channels first
UNBOUNDED = 1e9  # bounds from here on are none: MuJoCo writes 1e10 for a control without limits


class _Actions(NamedTuple):
    """An action space: its ActionSpec, and the environment's own bounds, or its first integer as `low`."""

    spec: ActionSpec
    low: Any
    high: Any


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
        UsageError: an environment of neither kind, or one that is not as asked above.
        NonFiniteError: a first reward is a NaN or an infinity.
    """
    return AdaptedVecEnv(make_env, row_seeds(seed, num_envs, purpose), render)


class AdaptedVecEnv:
    """E environments of a user's own, one after the other; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec.

    Actions of `spec` are in [-1, 1] and are stretched to the environment's own bounds where it has bounds.
    """

    def __init__(self, make_env, seeds: list[int], render):
        self._make_env, self._num_envs, self._seeds, self._render = make_env, len(seeds), seeds, render
        self._make_rows()
        tried = self._envs
        try:
            self._try_rows()
        finally:
            self.close()
        self._make_rows()  # trying began episodes: start afresh
        cores = {id(getattr(env, "unwrapped", env)) for env in [*tried, *self._envs]}
        if len(cores) < 2 * len(seeds):
            self.close()
            raise UsageError("make_env returned one object twice: it must make a new environment at every call.")

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return self._advance(self._zeros(), is_reset=True)

    def step(self, action) -> Step:
        """Takes one decision in every row that goes on; begins an episode in the others."""
        check_begun(bool(self._history), "step")
        return self._advance(check_action(action, self._num_envs, self.spec.action), is_reset=False)

    def close(self) -> None:
        """Closes every environment that has a `close`."""
        for env in self._envs:
            getattr(env, "close", lambda: None)()

    def snapshot(self) -> dict[str, Any]:
        """Returns the rows' seeds [E] and everything done so far: actions [T, E, ...] and is_reset, bool [T]."""
        self._check_whole()
        check_begun(bool(self._history), "snapshot")
        actions, is_reset = zip(*self._history, strict=True)
        return {"seeds": np.array(self._seeds), "actions": np.array(actions), "is_reset": np.array(is_reset)}

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Makes all environments again and replays a snapshot."""
        actions = np.asarray(snapshot["actions"])
        if not np.array_equal(snapshot.get("seeds", []), self._seeds) or actions.shape[1:] != self._zeros().shape:
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
        self._moving: int | None = None  # the row that is stepped now, or that raised

    def _try_rows(self) -> None:
        """Sets `spec` after an episode's beginning in every row and one decision in the first."""
        (action, low, high), *others = map(_read_actions, self._envs)
        for row, other in enumerate(others, 1):
            if other.spec != action or not (np.array_equal(other.low, low) and np.array_equal(other.high, high)):
                raise UsageError(f"row {row} has other actions than row 0: {_named(_space_of(self._envs[row]))}.")
        self._low, self._high = low, high
        if not _is_dm(self._envs[0]):
            _check_reset(self._envs[0])
        shapes = [self._begin(row).obs.shape for row in range(self._num_envs)]
        for row, shape in enumerate(shapes):
            _check_shape(row, shape, shapes[0])
        self.spec = EnvSpec(jax.ShapeDtypeStruct(shapes[0], np.uint8), action)
        _check_shape(0, self._decide(0, self._zeros()[0]).obs.shape, shapes[0])

    def _check_whole(self) -> None:
        """Raises UsageError where an environment raised in a decision: other rows have moved, some have not."""
        if self._moving is not None:
            raise UsageError(
                f"the environment of row {self._moving} raised an error in the middle of a decision, so that the rows "
                "no longer belong together: restore() a snapshot, or adapt() anew."
            )

    def _zeros(self) -> np.ndarray:
        """Returns the action of a row that only just began, for every row."""
        if self.spec.action.discrete:
            return np.zeros(self._num_envs, np.int32)
        return np.zeros((self._num_envs, self.spec.action.size), np.float32)

    def _advance(self, action: np.ndarray, *, is_reset: bool) -> Step:
        """Begins an episode in the rows that need one, takes a decision in the others."""
        self._check_whole()
        is_first = self._is_last | is_reset
        rows = []
        for row, first in enumerate(is_first):
            self._moving = row
            rows.append(self._begin(row) if first else self._decide(row, action[row]))
            _check_shape(row, rows[-1].obs.shape, self.spec.obs_shape)
        self._moving = None
        self._history.append((action, is_reset))
        obs, reward, discount, is_last = (np.array(field) for field in zip(*rows, strict=True))
        self._is_last = is_last
        mask = is_first if self.spec.action.discrete else is_first[:, None]
        prev_action = np.where(mask, self._zeros(), action)
        return Step(prev_action, obs, reward.astype(np.float32), discount.astype(np.float32), is_first, is_last.copy())

    def _begin(self, row: int) -> _Arrival:
        """Begins an episode in one row."""
        env = self._envs[row]
        if _is_dm(env):
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
            control = self._low + (action + 1) / 2 * (self._high - self._low)
            control = np.clip(control, self._low, self._high).astype(self._low.dtype)
        if _is_dm(env):
            arrival = env.step(control)
            obs, reward, last = arrival.observation, arrival.reward, arrival.last()
            terminated = _read_number("discount", arrival.discount, row) == 0
        else:
            arrival = env.step(control)
            if len(arrival) != 5:
                raise UsageError(
                    f"{type(env).__name__}.step() returned {len(arrival)} values: expected gymnasium's five, "
                    "(observation, reward, terminated, truncated, info); gym before 0.26 has four."
                )
            obs, reward, terminated, truncated, _ = arrival
            last = terminated or truncated
        discount = 0.0 if last and terminated else 1.0
        return _Arrival(_read_image(env, obs, self._render), _read_number("reward", reward, row), discount, bool(last))


def _is_dm(env: Any) -> bool:
    return not hasattr(env, "action_space")


def _space_of(env: Any) -> Any:
    """The action space of a gymnasium environment, the action spec of a dm_env one."""
    if not _is_dm(env):
        return env.action_space
    if hasattr(env, "action_spec"):
        return env.action_spec()
    raise UsageError(f"{type(env).__name__} is neither a dm_env nor a gymnasium environment.")


def _named(space: Any) -> str:
    """A space as one line of a message."""
    return " ".join(repr(space).split())


def _read_actions(env: Any) -> _Actions:
    """Returns what a dm_env or gymnasium environment accepts."""
    space = _space_of(env)
    known = ("Discrete", "DiscreteArray", "Box", "BoundedArray", "Array")
    kind = next((each.__name__ for each in type(space).__mro__ if each.__name__ in known), "")
    if kind.startswith("Discrete"):
        count = int(space.n if kind == "Discrete" else space.num_values)
        return _Actions(ActionSpec(count, True, 0, count - 1), int(getattr(space, "start", 0)), None)
    if not kind or len(space.shape) != 1 or np.dtype(space.dtype).kind != "f":
        raise UsageError(
            f"actions {_named(space)} of {type(env).__name__} are not supported: expected one integer, Discrete "
            "(dm_env: DiscreteArray), or one vector of floats, Box (dm_env: BoundedArray or Array)."
        )
    names = dict(Box=("low", "high"), BoundedArray=("minimum", "maximum"))
    bounds = [getattr(space, name) for name in names[kind]] if kind in names else [-np.inf, np.inf]
    low, high = (np.broadcast_to(np.asarray(bound, space.dtype), space.shape) for bound in bounds)
    has_low, has_high = low.astype(np.float64) > -UNBOUNDED, high.astype(np.float64) < UNBOUNDED
    if np.any(has_low != has_high):
        index = int(np.argmax(has_low != has_high))
        raise UsageError(
            f"actions {_named(space)} of {type(env).__name__} have one bound alone at index {index}, {low[index]} to "
            f"{high[index]}: wrap the environment so that it has both or none."
        )
    low, high = np.where(has_low, low, -1).astype(space.dtype), np.where(has_high, high, 1).astype(space.dtype)
    return _Actions(ActionSpec(space.shape[0], False, -1.0, 1.0), low, high)


def _check_reset(env: Any) -> None:
    """Raises UsageError unless reset is gymnasium's."""
    expected = f"{type(env).__name__}.reset(): expected gymnasium's reset(seed=...) -> (observation, info)"
    try:
        begun = env.reset(seed=0)
    except TypeError as error:
        if "seed" not in str(error):
            raise
        raise UsageError(f"{expected}, but it takes no seed; gym before 0.26 is not supported.") from error
    if not isinstance(begun, tuple) or len(begun) != 2:
        raise UsageError(f"{expected}, but it returned {type(begun).__name__}; gym before 0.26 is not supported.")


def _check_shape(row: int, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise UsageError(f"row {row} shows an image of {shape}, row 0 began with {expected}: all must be alike.")


def _read_number(what: str, value: Any, row: int) -> float:
    """Returns a reward or discount; UsageError unless it is one number, NonFiniteError for a NaN or an infinity."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise UsageError(f"{what} {_named(value)} of row {row} is not allowed: expected a number.")
    with np.errstate(over="ignore"):
        number = float(array.reshape(()).astype(np.float32))
    if not np.isfinite(number):
        raise NonFiniteError(f"{what} of row {row} is not finite: {_named(value)}.")
    return number


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
    image = image if image.ndim == 3 else image[..., None]
    first, _, last = image.shape
    if last not in (1, 3) and (first in (1, 3) or first <= MOST_CHANNELS < last):
        raise UsageError(
            f"{type(env).__name__} shows an image of {image.shape}: expected [X, Y, C], channels last, and these seem "
            "to be first; pass render=function(environment) or wrap it."
        )
    return image
