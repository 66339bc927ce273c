"""Many agents in one program: pytrees with a leading axis of members [S], one for each seed (S = 1: a single run)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.types import Array, UsageError

MOST_MEMBERS = 1024
LARGEST_SEED = 2**31 - 1 - MOST_MEMBERS  # of the first member


def member(tree: Any, i: Any) -> Any:
    """Member i of a pytree with leading axes [S], or what another index takes."""
    return jax.tree.map(lambda x: x[i], tree)


def alone(tree: Any) -> Any:
    """A pytree as that of a population of one: a leading axis [1] before those of every array."""
    return jax.tree.map(lambda x: x[None], tree)


def by_member(tree: Any, members: int, axis: int = 0) -> Any:
    """Splits an axis of environment rows, [S * E] -> [S, E], in every array."""

    def split(x: Array) -> Array:
        return x.reshape(*x.shape[:axis], members, -1, *x.shape[axis + 1 :])

    return jax.tree.map(split, tree)


class Member(NamedTuple):
    """What tells one agent of a program from the others."""

    task: str
    seed: int


def check_seed(seed: int) -> None:
    """Raises UsageError for a config's seed that is out of range."""
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"config.seed={seed!r}: must be an integer from 0 to {LARGEST_SEED}")


def make_members(task: str, seed: int, population: int) -> tuple[Member, ...]:
    """A tuple of Member: every task of "first+second+...", each with the seeds seed, seed + 1, ...

    Raises: UsageError for numbers out of range and for a task that is named twice.
    """
    check_seed(seed)
    tasks = task.split("+")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"config.task={task!r}: names one task twice; config.population is for several seeds")
    most = MOST_MEMBERS // len(tasks)
    if type(population) is not int or not 1 <= population <= most:
        raise UsageError(f"config.population={population!r}: must be an integer from 1 to {most} for each task")
    return tuple(Member(name, seed + i) for name in tasks for i in range(population))


def by_task(members: tuple[Member, ...], tasks: Sequence[str]) -> dict[str, tuple[Member, ...]]:
    """{name: the members as players of that task}: of what each plays in turn, the task it was made with first.

    Args: members: tuple of Member; tasks: full names of what every member plays beside its own.
    Raises: UsageError for a task that is named twice, and where members that already differ in their tasks get more.
    """
    made_with = {member.task for member in members}
    if tasks and len(made_with) > 1:
        raise UsageError(f"config.train.tasks={tasks}: only where config.task names one task, not {len(made_with)}")
    players = {short_name(members[0].task): members}
    players |= {short_name(task): tuple(member._replace(task=task) for member in members) for task in tasks}
    if len(players) < 1 + len(tasks):
        raise UsageError(f"config.train.tasks={tasks}: names one task twice, or {members[0].task} again")
    return players


def short_name(task: str) -> str:
    """The name of a task without its family: dmc:cheetah_run -> cheetah_run."""
    return task.split(":")[-1]


def member_keys(members: Sequence[Member], count: int) -> Array:
    """`count` arrays of keys, [S] each; a member's depend on its seed alone."""
    seeds = np.array([member.seed for member in members], np.uint32)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), count))(seeds).T


def mean_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over members of every metric that all have. rows: one dict for each member."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def pick(members: Sequence[Member], index: int) -> Member:
    """The Member of --member=index; raises UsageError if there are fewer."""
    if index >= len(members):
        raise UsageError(f"--member={index}: the run has {len(members)}, counted from 0")
    return members[index]
