"""Environments of all members of a program: what they are like, and one pool of them all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wmjax import envs
from wmjax.envs import snapshots
from wmjax.envs.concatenated import JoinedVecEnv
from wmjax.run import processes
from wmjax.run.members import Member
from wmjax.types import EnvSpec, Step, UsageError


def spec_of(task: str, options: Mapping[str, Any]) -> EnvSpec:
    """The EnvSpec of a task's environments. options: of `wmjax.envs.make`."""
    env = envs.make(task, 1, 0, **options)
    env.close()
    return env.spec


def first_step(members: Sequence[Member], rows: int, options: Mapping[str, Any]) -> tuple[EnvSpec, Step]:
    """(EnvSpec, Step [E]) of environments made for this alone: what each member's will be like, before all are made.

    Raises: UsageError where two tasks do not fit one program.
    """
    first, *others = [member for member in members if member.seed == members[0].seed]
    env = envs.make(first.task, rows, first.seed, **options)
    step = env.reset()
    env.close()
    check_alike({first.task: env.spec} | {other.task: spec_of(other.task, options) for other in others})
    return env.spec, step


def check_alike(specs: Mapping[str, EnvSpec]) -> None:
    """Raises UsageError where two tasks do not fit one program. specs: of each task."""
    (first, spec), *others = specs.items()
    for other, other_spec in others:
        for name, value, other_value in zip(spec._fields, spec, other_spec, strict=True):
            if value != other_value:
                raise UsageError(f"{first} and {other} do not fit one program: {name} {value} and {other_value}")


def widest(specs: Mapping[str, EnvSpec]) -> str:
    """The one of an agent's tasks whose spec the agent is made for: that with the longest actions.

    Args: specs: {task: EnvSpec}; actions of the others are to be padded to its own (`wmjax.envs.pad`).
    Raises: UsageError where tasks differ in more than the length of their actions, action repeat and time limit.
    """
    task = max(specs, key=lambda name: specs[name].action.size)
    for other, spec in specs.items():
        padded = spec._replace(action=spec.action._replace(size=specs[task].action.size))
        for field in ("obs", "action"):
            value, widest_value = getattr(padded, field), getattr(specs[task], field)
            if value != widest_value:
                raise UsageError(f"{other} and {task} are no tasks for one agent: {field} {value} and {widest_value}")
    return task


def join_envs(members: Sequence[Member], rows: int, options: Mapping[str, Any], purpose: str = "train") -> JoinedVecEnv:
    """One pool for every member, `rows` environments each, as one VecEnv; purpose: as of `wmjax.envs.make`.

    Of several processes each makes its share of every member's rows.
    """
    count, first = processes.share(rows)
    settings: dict[str, Any] = dict(purpose=purpose, first_row=first, **options)
    return JoinedVecEnv([envs.make(member.task, count, member.seed, **settings) for member in members])


class PlayedByFirst:
    """A pool of too few rows for a share each: process 0 plays it, and all see what it shows.

    A VecEnv, as `wmjax.envs.VecEnv`, whose methods all processes have to call.
    """

    def __init__(self, env: envs.VecEnv) -> None:
        """env: the pool, made in every process."""
        self._env, self.spec = env, env.spec

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return processes.of_first(self._env.reset)

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision in every row."""
        return processes.of_first(lambda: self._env.step(action))

    def snapshot(self) -> dict[str, Any]:
        """Returns the snapshot of process 0."""
        return processes.of_first(self._env.snapshot)

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Restores the pool of process 0; returns the Step that was current."""
        return processes.of_first(lambda: self._env.restore(snapshot))

    def close(self) -> None:
        """Closes it."""
        self._env.close()


def single_envs(members: Sequence[Member], options: Mapping[str, Any]) -> PlayedByFirst:
    """As `join_envs`, one environment for every member; of several processes the first one plays them."""
    return PlayedByFirst(JoinedVecEnv([envs.make(member.task, 1, member.seed, **options) for member in members]))


def envs_of(
    tasks: Mapping[str, Sequence[Member]], rows: int, options: Mapping[str, Any], size: int, purpose: str = "train"
) -> dict[str, Any]:
    """{task: one pool for every member} of an agent's tasks, behind actions of one size; see `join_envs`, `envs.pad`.

    tasks: {task: the members as its players}.
    """
    return {task: envs.pad(join_envs(players, rows, options, purpose), size) for task, players in tasks.items()}


def snapshot(env: envs.VecEnv) -> dict[str, Any]:
    """The snapshot of a pool as of `join_envs`: of all rows, those of other processes too."""
    parts = processes.gather(env.snapshot())
    return parts[0] if len(parts) == 1 else snapshots.join(parts)


def restore(env: envs.VecEnv, snapshot: dict[str, Any], rows: int) -> None:
    """Restores a pool from what `snapshot` returned, whatever the number of processes was. rows: of each member."""
    if processes.count() > 1:
        count, first = processes.share(rows)
        snapshot = snapshots.rows_of(snapshot, first, count)
    env.restore(snapshot)
