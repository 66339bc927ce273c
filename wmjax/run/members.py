"""Many agents in one program: pytrees with a leading axis of members [S], one for each seed (S = 1: a single run)."""

from typing import NamedTuple

import jax
import numpy as np

from wmjax.types import UsageError


def member(tree, i):
    """Member i of a pytree with leading axes [S], or what another index takes."""
    return jax.tree.map(lambda x: x[i], tree)


def by_member(tree, members, axis=0):
    """Splits an axis of environment rows, [S * E] -> [S, E], in every array."""

    def split(x):
        return x.reshape(*x.shape[:axis], members, -1, *x.shape[axis + 1 :])

    return jax.tree.map(split, tree)


MOST_MEMBERS = 1024


LARGEST_SEED = 2**31 - 1 - MOST_MEMBERS  # of the first member


class Member(NamedTuple):
    """What tells one agent of a program from the others."""

    task: str
    seed: int


def make_members(task, seed, population):
    """A tuple of Member: every task of "first+second+...", each with the seeds seed, seed + 1, ...

    Raises: UsageError for numbers out of range and for a task that is named twice.
    """
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"config.seed={seed!r}: must be an integer from 0 to {LARGEST_SEED}")
    tasks = task.split("+")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"config.task={task!r}: names one task twice; config.population is for several seeds")
    most = MOST_MEMBERS // len(tasks)
    if type(population) is not int or not 1 <= population <= most:
        raise UsageError(f"config.population={population!r}: must be an integer from 1 to {most} for each task")
    return tuple(Member(each, seed + i) for each in tasks for i in range(population))


def member_keys(members, count):
    """`count` arrays of keys, [S] each; a member's depend on its seed alone."""
    seeds = np.array([each.seed for each in members], np.uint32)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), count))(seeds).T


def mean_of(rows):
    """The mean over members of every metric that all have. rows: one dict for each member."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def pick(members, index):
    """The Member of --member=index; raises UsageError if there are fewer."""
    if index >= len(members):
        raise UsageError(f"--member={index}: the run has {len(members)}, counted from 0")
    return members[index]
