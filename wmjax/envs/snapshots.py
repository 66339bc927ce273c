"""Snapshots of environments whose state is a few arrays: the arrays, and the current Step without its obs.

`join` puts the rows of several snapshots together and `rows_of` takes some of them, for every family, so that
environments that were played in several shares go on in one, and the other way round.
"""

from typing import Any

import numpy as np

from wmjax.envs.check import JOINED, check_begun, check_identity
from wmjax.types import Step

# Arrays [t, E, ...] of snapshots, aligned at the end; all others are [E, ...].
TIME_FIRST = ("actions", "history", "env_states")
KEPT = ("prev_action", "reward", "discount", "is_first", "is_last")  # of a Step; what it showed is made anew


def take(identity: int, state: dict[str, Any], step: Step | None) -> dict[str, Any]:
    """A snapshot: identity, copies of the arrays of `state` by name, and the Step's fields as step_<name>.

    Raises: UsageError where there is no Step yet.
    """
    return {"identity": identity} | {name: np.array(array) for name, array in state.items()} | fields_of(step)


def fields_of(step: Step | None) -> dict[str, Any]:
    """Copies of the Step's fields but for its obs, as step_<name>: what `step_of` reads; UsageError for none yet."""
    check_begun(step is not None, "snapshot")
    return {f"step_{name}": np.array(getattr(step, name)) for name in KEPT}


def arrays_of(snapshot: dict[str, Any], identity: int, *names: str) -> list[np.ndarray]:
    """Copies of the arrays of these names; raises UsageError for a snapshot of another environment."""
    check_identity(snapshot, identity)
    return [np.array(snapshot[name]) for name in names]


def step_of(snapshot: dict[str, Any], obs: Any) -> Step:
    """The Step that was current, with what it shows."""
    return Step(obs=obs, **{name: np.array(snapshot[f"step_{name}"]) for name in KEPT})


def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The snapshot of a pool that has the rows of several like it, those of the first one first."""
    joined: dict[str, Any] = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if isinstance(first, dict):  # of one of several pools, or of what is wrapped
            joined[name] = join(values)
        elif name == "identity":
            joined[name] = JOINED
        elif name in TIME_FIRST:
            longest = max(map(len, values))
            before = [np.zeros((longest - len(x), *x.shape[1:]), x.dtype) for x in values]
            joined[name] = np.concatenate([np.concatenate(pair) for pair in zip(before, values, strict=True)], axis=1)
        else:
            joined[name] = np.concatenate(values)
    return joined


def rows_of(snapshot: dict[str, Any], first: int, count: int) -> dict[str, Any]:
    """The snapshot of a pool that has only some of the rows: `count` of them, from number `first` on."""
    rows, taken = slice(first, first + count), dict[str, Any]()
    for name, value in snapshot.items():
        if isinstance(value, dict):
            taken[name] = rows_of(value, first, count)
        elif name == "identity":
            taken[name] = JOINED
        else:
            taken[name] = value[:, rows] if name in TIME_FIRST else value[rows]
    return taken
