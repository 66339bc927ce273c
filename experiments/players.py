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
    params: Any
    task: str  # full name of its environment
    env: dict  # options of wmjax.envs.make for what it sees
    source: dict  # name of the experiment, and how far its training was at the checkpoint
    actions: int | None = None  # size of its actions, where an environment may take fewer
    label: str = ""  # of the task, at the end of files' names


def restore(folder: pathlib.Path, member: int = 0, task: str | None = None) -> Restored:
    """The Restored of a run's newest checkpoint.

    Args: member: which agent of a population, counted from 0; task: short name of one of an agent's tasks, or None.
    Raises: UsageError if the folder holds no run, no good checkpoint, no agent, fewer members or no such task.
    """
    config = workdir.read_config(folder)
    if planet.is_own(config):
        loaded = planet.load(folder, member, task)
        source = dict(name="planet", episodes=loaded.episodes, updates=loaded.updates)
        what_plays = (loaded.agent.actor, loaded.params, loaded.task, loaded.env)
        return Restored(*what_plays, source, loaded.spec.action.size, loaded.label)
    if task is not None:
        raise UsageError(f"--task={task}: is for an agent of PlaNet, and {folder} holds a run of another experiment")
    if smaller_world_models.is_own(config):
        agent = smaller_world_models.load(folder, member)
        source = dict(name="smaller_world_models", iterations=agent.iterations)
        return Restored(agent.actor, agent.params, agent.task, agent.env, source)
    if i2a.is_own(config):
        if member:
            raise UsageError(f"--member={member}: the run has 1, counted from 0")
        querying = i2a.load(folder)
        source = dict(name="i2a", updates=querying.updates)
        return Restored(querying.actor, querying.params, querying.task, querying.env, source)
    raise UsageError(f"{folder} holds a run of an experiment that trains no agent")
