"""Snapshots of environments whose state is a few arrays: the arrays, and the Step that was current without its obs."""

from typing import Any

import numpy as np

from wmjax.envs.check import check_begun, check_identity
from wmjax.types import Step

KEPT = ("prev_action", "reward", "discount", "is_first", "is_last")  # of a Step; what it showed is made anew


def take(identity: int, state: dict[str, Any], step: Step | None) -> dict[str, Any]:
    """A snapshot: identity, copies of the arrays of `state` by name, and the Step's fields as step_<name>.

    Raises: UsageError where there is no Step yet.
    """
    check_begun(step is not None, "snapshot")
    arrays = state | {f"step_{name}": getattr(step, name) for name in KEPT}
    return {"identity": identity} | {name: np.array(array) for name, array in arrays.items()}


def arrays_of(snapshot: dict[str, Any], identity: int, *names: str) -> list[np.ndarray]:
    """Copies of the arrays of these names; raises UsageError for a snapshot of another environment."""
    check_identity(snapshot, identity)
    return [np.array(snapshot[name]) for name in names]


def step_of(snapshot: dict[str, Any], obs: Any) -> Step:
    """The Step that was current, with what it shows."""
    return Step(obs=obs, **{name: np.array(snapshot[f"step_{name}"]) for name in KEPT})
