"""Checks of what a user passes in: each raises a UsageError of one line that names the input and what is allowed."""

import difflib
import numbers
import re
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from wmjax.types import ActionSpec, NonFiniteError, UsageError

JOINED = -1  # the identity of a snapshot that was made of others' rows (`envs/snapshots.py`)


def check_name(what: str, name: str, allowed: Iterable[str], meant: str | None = None) -> None:
    """Raises unless `name` is one of `allowed`; the message has all of them, the nearest first.

    meant: `name` without what other libraries add to it, if they do.
    """
    allowed = sorted(allowed)
    if name in allowed:
        return
    near = nearest(str(meant or name), allowed)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"unknown {what} {name!r}.{hint} Allowed: {', '.join(allowed)}.")


def check_names(what: str, names: Sequence[str], allowed: Collection[str]) -> None:
    """Raises unless there are `names`, each one of `allowed`, each once."""
    if not names:
        raise UsageError(f"{what}=: give at least one of {', '.join(allowed)}")
    for name in names:
        check_name(what, name, allowed)
    check_once(what, names)


def check_once(what: str, names: Sequence[str]) -> None:
    """Raises where a name is there twice."""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{what}={','.join(names)}: {repeated[0]} is given twice, give it once")


def nearest(name: str, allowed: list[str]) -> list[str]:
    """The one of `allowed` that differs from `name` in case and punctuation alone, or else the three nearest."""
    plain = {letters(other): other for other in allowed}
    if letters(name) in plain:
        return [plain[letters(name)]]
    return [plain[close] for close in difflib.get_close_matches(letters(name), plain, n=3, cutoff=0.4)]


def letters(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[\W_]", "", name).lower()


def check_options(family: str, options: dict[str, Any], cls: Any) -> Any:
    """Options of a family as its NamedTuple `cls`, defaults filled in; raises for a name that is not a field."""
    for name in options:
        check_name(f"{family} option", name, cls._fields)
    return cls(**options)


def check_int(what: str, value: Any, *, low: int, high: int, optional: bool = False) -> None:
    """Raises unless `value` is an integer in [low, high] (or None, when optional)."""
    if value is None and optional:
        return
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or not low <= value <= high:
        none = "None or " if optional else ""
        raise UsageError(f"{what}={value!r} is not allowed: expected {none}an integer in [{low}, {high}].")


def check_action(action: Any, num_envs: int, spec: ActionSpec) -> np.ndarray:
    """Checks one decision for every row.

    Args:
        action: anything numpy can read, [E, A] or, when discrete, integers [E].
        num_envs: E.
        spec: what the environment accepts.

    Returns:
        float32 [E, A] clipped to [low, high], or int32 [E].

    Raises:
        UsageError: wrong shape or dtype, or a discrete action out of range.
        NonFiniteError: NaN or infinity; clipping would hide it.
    """
    action = np.asarray(action)
    shape = (num_envs,) if spec.discrete else (num_envs, spec.size)
    if action.shape != shape:
        raise UsageError(f"action has shape {action.shape}: expected {shape}.")
    if spec.discrete:
        if action.dtype.kind not in "iu":
            raise UsageError(f"action has dtype {action.dtype}: expected integers in [0, {spec.size}).")
        if np.any(action < 0) or np.any(action >= spec.size):
            raise UsageError(f"action {action.tolist()} is out of range: expected integers in [0, {spec.size}).")
        return action.astype(np.int32)
    if not np.all(np.isfinite(action)):
        rows = np.flatnonzero(~np.isfinite(action).all(axis=-1)).tolist()
        raise NonFiniteError(f"action is not finite in environment rows {rows}.")
    return np.clip(action.astype(np.float32), spec.low, spec.high)


def identity_of(*parts: Any) -> int:
    """A checksum of everything that environments were made of, to tell their snapshots from those of others."""
    return zlib.crc32(repr(parts).encode())


def check_identity(snapshot: dict[str, Any], identity: int) -> None:
    """Raises unless a snapshot is of the environments with this `identity_of`, or JOINED."""
    if int(snapshot["identity"]) not in (identity, JOINED):
        raise UsageError("this snapshot is of another environment: task, num_envs, seed or an option differs.")


def check_begun(begun: bool, call: str) -> None:
    """Raises unless `reset` was called before `call`."""
    if not begun:
        raise UsageError(f"{call}() was called before reset().")
