"""One environment of a user's own: the interfaces of gymnasium and dm_env as one.

Neither package is imported: an environment with `action_space` is taken for a gymnasium one, one with `action_spec` for
a dm_env one, and spaces are known by the names of their classes.
"""

from typing import Any, NamedTuple

import numpy as np

from wmjax.envs.views import one_line
from wmjax.types import ActionSpec, NonFiniteError, UsageError

UNBOUNDED = 1e9  # bounds from here on are none: MuJoCo writes 1e10 for a control without limits


class Actions(NamedTuple):
    """An action space: its ActionSpec, and the environment's own bounds, or its first integer as `low`."""

    spec: ActionSpec
    low: Any
    high: Any


def reset(env: Any, seed: int | None) -> Any:
    """Begins an episode: its first observation. seed: None where the environment's `reset` takes none."""
    if is_dm(env):
        return env.reset().observation
    obs, _ = env.reset() if seed is None else env.reset(seed=seed)
    return obs


def step(env: Any, control: Any, row: int) -> tuple[Any, float, bool, bool]:
    """(observation, reward, whether it terminated, whether the episode is over) after one step of an environment."""
    arrival = env.step(control)
    if is_dm(env):
        reward, discount = _read_number("reward", arrival.reward, row), _read_number("discount", arrival.discount, row)
        return arrival.observation, reward, arrival.last() and discount == 0, arrival.last()
    if len(arrival) != 5:
        raise UsageError(
            f"{type(env).__name__}.step() returned {len(arrival)} values: expected gymnasium's five, "
            "(observation, reward, terminated, truncated, info); gym before 0.26 has four."
        )
    obs, reward, terminated, truncated, _ = arrival
    return obs, _read_number("reward", reward, row), bool(terminated), bool(terminated or truncated)


def is_dm(env: Any) -> bool:
    """Whether an environment is taken for a dm_env one."""
    return not hasattr(env, "action_space")


def action_space(env: Any) -> Any:
    """The action space of a gymnasium environment, the action spec of a dm_env one."""
    if not is_dm(env):
        return env.action_space
    if hasattr(env, "action_spec"):
        return env.action_spec()
    raise UsageError(f"{type(env).__name__} is neither a dm_env nor a gymnasium environment.")


def get_state(env: Any) -> bytes:
    """What `get_state` of an environment returns; nothing where it, or `set_state`, is missing or it gives no bytes."""
    if not all(callable(getattr(env, name, None)) for name in ("get_state", "set_state")):
        return b""
    state = env.get_state()
    return bytes(state) if isinstance(state, bytes | bytearray) else b""


def read_actions(env: Any) -> Actions:
    """Returns what a dm_env or gymnasium environment accepts."""
    space = action_space(env)
    known = ("Discrete", "DiscreteArray", "Box", "BoundedArray", "Array")
    kind = next((cls.__name__ for cls in type(space).__mro__ if cls.__name__ in known), "")
    if kind.startswith("Discrete"):
        count = int(space.n if kind == "Discrete" else space.num_values)
        return Actions(ActionSpec(count, True, 0, count - 1), int(getattr(space, "start", 0)), None)
    if not kind or len(space.shape) != 1 or np.dtype(space.dtype).kind != "f":
        raise UsageError(
            f"actions {one_line(space)} of {type(env).__name__} are not supported: expected one integer, Discrete "
            "(dm_env: DiscreteArray), or one vector of floats, Box (dm_env: BoundedArray or Array)."
        )
    names = dict(Box=("low", "high"), BoundedArray=("minimum", "maximum"))
    bounds = [getattr(space, name) for name in names[kind]] if kind in names else [-np.inf, np.inf]
    low, high = (np.broadcast_to(np.asarray(bound, space.dtype), space.shape) for bound in bounds)
    has_low, has_high = low.astype(np.float64) > -UNBOUNDED, high.astype(np.float64) < UNBOUNDED
    if np.any(has_low != has_high):
        index = int(np.argmax(has_low != has_high))
        raise UsageError(
            f"actions {one_line(space)} of {type(env).__name__} have one bound alone at index {index}, {low[index]} to "
            f"{high[index]}: wrap the environment so that it has both or none."
        )
    low, high = np.where(has_low, low, -1).astype(space.dtype), np.where(has_high, high, 1).astype(space.dtype)
    return Actions(ActionSpec(space.shape[0], False, -1.0, 1.0), low, high)


def takes_seed(env: Any) -> bool:
    """Whether `reset` takes a seed, as dm_env's does not; raises UsageError unless it returns what gymnasium's does."""
    if is_dm(env):
        return False
    takes_seed = True
    try:
        begun = env.reset(seed=0)
    except TypeError as error:
        if "seed" not in str(error):
            raise
        begun, takes_seed = env.reset(), False
    if not isinstance(begun, tuple) or len(begun) != 2:
        raise UsageError(
            f"{type(env).__name__}.reset(): expected gymnasium's reset(seed=...) -> (observation, info), but it "
            f"returned {type(begun).__name__}; gym before 0.26 is not supported."
        )
    return takes_seed


def _read_number(what: str, value: Any, row: int) -> float:
    """Returns a reward or discount; UsageError unless it is one number, NonFiniteError for a NaN or an infinity."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise UsageError(f"{what} {one_line(value)} of row {row} is not allowed: expected a number.")
    with np.errstate(over="ignore"):
        number = float(array.reshape(()).astype(np.float32))
    if not np.isfinite(number):
        raise NonFiniteError(f"{what} of row {row} is not finite: {one_line(value)}.")
    return number
