"""The newest agent of a run, whatever the experiment that trained it."""

import pathlib
from typing import Any, NamedTuple

from experiments.i2a import agent as i2a
from experiments.planet import agent as planet
from experiments.smaller_world_models import agent as smaller_world_models
from wmjax.storage import workdir
from wmjax.types import Actor, UsageError


class Restored(NamedTuple):
    """What plays in a finished or unfinished run."""

    actor: Actor
    params: Any  # of one member, [1, ...]
    task: str  # full name of its environment
    env: dict  # options of wmjax.envs.make for what it sees
    told: dict  # name of the experiment, and how far the checkpoint was
    actions: int | None = None  # size of its actions, where an environment may take fewer
    label: str = ""  # of the task, at the end of files' names


def restore(folder: pathlib.Path, member: int = 0, task: str | None = None) -> Restored:
    """The Restored of a run's newest checkpoint.

    Args: member: which agent of a population, counted from 0; task: short name of one of an agent's tasks, or None.
    Raises: UsageError if the folder holds no run, no good checkpoint, no agent, fewer members or no such task.
    """
    config = workdir.read_config(folder)
    if planet.is_own(config):
        of = planet.load(folder, member, task)
        told = dict(name="planet", episodes=of.episodes, updates=of.updates)
        return Restored(of.agent.actor, of.params, of.task, of.env, told, of.spec.action.size, of.label)
    if task is not None:
        raise UsageError(f"--task={task}: is for an agent of PlaNet, and {folder} holds a run of another experiment")
    if smaller_world_models.is_own(config):
        own = smaller_world_models.load(folder, member)
        told = dict(name="smaller_world_models", iterations=own.iterations)
        return Restored(own.actor, own.params, own.task, own.env, told)
    if i2a.is_own(config):
        if member:
            raise UsageError(f"--member={member}: the run has 1, counted from 0")
        queries = i2a.load(folder)
        told = dict(name="i2a", updates=queries.updates)
        return Restored(queries.actor, queries.params, queries.task, queries.env, told)
    raise UsageError(f"{folder} holds a run of an experiment that trains no agent")
