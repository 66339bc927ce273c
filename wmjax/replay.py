"""The on-device replay: one ring of arrival records for each environment row.

    capacity rows of time
    row 0   [ 8 9 | 2 3 4 5 6 7 ]      cursor 2, full: ages 0..7 are the slots 2 3 4 5 6 7 0 1
    row 1   [ 8 9 | 2 3 4 5 6 7 ]

All rows advance together. Images stay uint8. Every function is pure; jit `add` and `extend` with the replay donated and
the ring is written in place.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from wmjax.memory import check_fits
from wmjax.types import Array, Step, UsageError


@struct.dataclass
class Replay:
    """rows: Step with leading axes [E, capacity]; cursor: the slot written next; filled: slots that hold data."""

    rows: Step
    cursor: Array  # int32 []
    filled: Array  # int32 []


def init(capacity: int, num_envs: int, step: Step) -> Replay:
    """An empty ring on the default device.

    Args: capacity: rows for each environment; num_envs: E; step: an example Step with leading axis [E].
    Raises: UsageError when the memory at hand cannot hold it, or the example is not of E rows.
    """
    if capacity < 1 or num_envs < 1:
        raise UsageError(f"replay capacity {capacity} for {num_envs} environments: both must be at least 1")
    if step.reward.shape != (num_envs,):
        raise UsageError(f"replay: the example Step's reward is {step.reward.shape}: expected ({num_envs},)")
    check_fits(nbytes(capacity, step), f"replay of {capacity} rows for {num_envs} environments")
    rows = jax.tree.map(lambda x: jnp.zeros((num_envs, capacity, *x.shape[1:]), x.dtype), step)
    return Replay(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def nbytes(capacity: int, step: Step) -> int:
    """Bytes of a ring of `capacity` rows for each environment of the example `step` [E]."""
    return capacity * sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(step))


def add(replay: Replay, step: Step) -> Replay:
    """Append one Step [E]."""
    return extend(replay, jax.tree.map(lambda x: x[None], step))


def extend(replay: Replay, steps: Step, count: Array | None = None) -> Replay:
    """Append steps in order: Step [T, E, ...], the first `count` <= capacity of them; None: all, T <= capacity.

    Raises: UsageError where shapes or types are not those of the example that the ring was made for.
    """
    check_alike(replay.rows, steps)
    capacity = replay.rows.reward.shape[1]
    time = steps.reward.shape[0]
    if count is None and time > capacity:
        raise UsageError(f"{time} steps at once do not fit a replay of {capacity} rows: raise the capacity")
    count = time if count is None else count
    row = jnp.arange(time)
    slots = jnp.where(row < count, (replay.cursor + row) % capacity, capacity + row)  # from capacity on: dropped

    def write(ring: Array, new: Array) -> Array:
        return ring.at[:, slots].set(jnp.swapaxes(new, 0, 1), mode="drop", unique_indices=True)

    rows = jax.tree.map(write, replay.rows, steps)
    return Replay(rows, (replay.cursor + count) % capacity, jnp.minimum(replay.filled + count, capacity))


def check_alike(rows: Step, steps: Step) -> None:
    """Raises UsageError unless Step [T, E, ...] fits a ring's rows [E, capacity, ...]: writing broadcasts and casts."""
    time = steps.reward.shape[0]
    kept = jax.tree.map(lambda x: ((time, x.shape[0], *x.shape[2:]), x.dtype.name), rows)
    given = jax.tree.map(lambda x: (x.shape, jax.dtypes.canonicalize_dtype(x.dtype).name), steps)
    for field in Step.__dataclass_fields__:
        if getattr(given, field) != getattr(kept, field):
            raise UsageError(f"replay: {field} is {getattr(given, field)}: expected {getattr(kept, field)}")


def check_length(replay: Replay, length: int, longest: Callable[[Replay], Array]) -> None:
    """Raises UsageError where no chunk of `length` rows is in the ring; inside jit the capacity alone is compared."""
    capacity = replay.rows.reward.shape[1]
    if not 1 <= length <= capacity:
        raise UsageError(f"chunks of {length} rows from a replay of {capacity} rows: choose 1 to {capacity}")
    if not isinstance(replay.filled, jax.core.Tracer) and length > longest(replay):
        raise UsageError(f"chunks of {length} rows: the longest in the replay has {longest(replay)}")


def sample(replay: Replay, key: Array, batch: int, length: int) -> Step:
    """Chunks whose start is uniform over environments and valid positions; `is_first` tells where they cross episodes.

    Args: batch: B chunks; length: T rows, at most the rows filled.
    Returns: Step [B, T, ...].
    Raises: UsageError where so long a chunk is not there. Inside jit the capacity alone is compared.
    """
    check_length(replay, length, lambda replay: replay.filled)
    row_key, start_key = jax.random.split(key)
    rows = jax.random.randint(row_key, (batch,), 0, replay.rows.reward.shape[0])
    ages = jax.random.randint(start_key, (batch,), 0, replay.filled - length + 1)
    return gather(replay, rows, ages, length)


def sample_within_episodes(replay: Replay, key: Array, batch: int, length: int) -> Step:
    """Chunks inside one episode each (PlaNet), uniform over all such starts; arguments and result as `sample`.

    `longest_episode` must be at least `length`, which is not checked inside jit either.
    """
    check_length(replay, length, longest_episode)
    capacity = replay.rows.reward.shape[1]
    ages = jnp.arange(capacity)
    first = replay.rows.is_first[:, slot(replay, ages)]  # [E, capacity] by age
    begun = jnp.cumsum(first, axis=1)
    end = jnp.minimum(ages + length - 1, capacity - 1)
    inside = (ages + length <= replay.filled)[None] & (begun[:, end] == begun)
    count = jnp.cumsum(inside.reshape(-1))
    which = jax.random.randint(key, (batch,), 0, count[-1])
    flat = jnp.searchsorted(count, which, side="right")  # the (which + 1)-th valid start
    return gather(replay, flat // capacity, flat % capacity, length)


def longest_episode(replay: Replay) -> Array:
    """Rows of the longest piece of one episode in the ring, int32 []: chunks inside episodes can be no longer."""
    ages = jnp.arange(replay.rows.reward.shape[1])
    first = replay.rows.is_first[:, slot(replay, ages)]  # [E, capacity] by age
    began = jax.lax.cummax(jnp.where(first, ages[None], 0), axis=1)
    return jnp.where((ages < replay.filled)[None], ages[None] - began + 1, 0).max()


def gather(replay: Replay, rows: Array, ages: Array, length: int) -> Step:
    """Chunks starting at the given rows and ages, int32 [B] each -> Step [B, T, ...]."""
    slots = slot(replay, ages[:, None] + jnp.arange(length)[None])  # [B, T]
    return jax.tree.map(lambda ring: ring.at[rows[:, None], slots].get(mode="promise_in_bounds"), replay.rows)


def slot(replay: Replay, ages: Array) -> Array:
    """Ring positions of ages, 0 the oldest row."""
    return (replay.cursor - replay.filled + ages) % replay.rows.reward.shape[1]
