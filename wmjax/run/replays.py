"""The replays of all members of a program: one ring each, in one pytree [S, ...]."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from wmjax import replay
from wmjax.memory import check_fits
from wmjax.run import devices
from wmjax.run.collect import padded
from wmjax.run.members import by_member, member
from wmjax.types import Array, Step

PIECE = 128  # rows of time that one dispatch writes into a replay


def check_memory(capacity: int, num_envs: int, example: Step, members: int, mesh: Mesh) -> None:
    """Raises UsageError unless the replays of all members fit; arguments as in `make_memory`."""
    whole = members * replay.nbytes(capacity, example)
    size = whole * devices.in_one_memory(mesh) // (mesh.size if num_envs > 1 else 1)
    check_fits(size, f"replay of {capacity} rows for {members} x {num_envs} environments")


def make_memory(capacity: int, num_envs: int, example: Step, members: int, mesh: Mesh) -> replay.Replay:
    """An empty replay for every member [S]; raises UsageError if they do not fit.

    Args: capacity: rows of each environment; num_envs: E; example: Step [E]. Environments are split over the mesh; the
      rows of a single one are on every device.
    """
    check_memory(capacity, num_envs, example, members, mesh)
    whole = devices.replicated(mesh)
    rows: Any = devices.split(mesh, 1) if num_envs > 1 else whole  # stands for a Step
    shardings = replay.Replay(rows=rows, cursor=whole, filled=whole)

    def one(_: Array) -> replay.Replay:
        return replay.init(capacity, num_envs, example)

    return jax.jit(jax.vmap(one), out_shardings=shardings)(np.arange(members))


def make_extend(memory: replay.Replay) -> Callable[[replay.Replay, Step], replay.Replay]:
    """A function (memory, steps) -> memory: appends numpy Step [T, S * E, ...] to the members' replays, in place.

    Rows go in by pieces of one length, the last of them padded, so that every T has the same program.
    """
    members, _, capacity = memory.rows.reward.shape
    length = min(PIECE, capacity)

    def write(memory: replay.Replay, piece: Step, count: Array) -> replay.Replay:
        piece = by_member(piece, members, axis=1)
        return jax.vmap(replay.extend, (0, 1, None))(memory, piece, count)

    write = jax.jit(write, donate_argnums=0, out_shardings=jax.tree.map(lambda x: x.sharding, memory))

    def extend(memory: replay.Replay, steps: Step) -> replay.Replay:
        for first in range(0, len(steps.reward), length):
            piece = member(steps, slice(first, first + length))
            memory = write(memory, padded(piece, length), np.int32(len(piece.reward)))
        return memory

    return extend


def make_constant(length: int, num_envs: int, example: Step, members: int, mesh: Mesh) -> replay.Replay:
    """A full replay for every member [S], to measure updates on: one episode of `length` equal rows.

    Args: as of `make_memory`.
    """
    rows = jax.tree.map(lambda x: np.concatenate([x] * members)[None].repeat(length, axis=0), example)
    rows = rows.replace(is_first=rows.is_first & (np.arange(length) == 0)[:, None])  # [T, S * E]
    memory = make_memory(length, num_envs, example, members, mesh)
    return make_extend(memory)(memory, rows)
