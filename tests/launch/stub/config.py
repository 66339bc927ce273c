"""Settings of the stub. fault: how a run ends, as `__main__` reads it."""

from ml_collections import ConfigDict


def get_config(argument=""):
    """The config of "task,preset"."""
    task, _, preset = argument.partition(",")
    rate = 1 if preset == "by_task" and task.startswith("fake:counter") else 2
    env, model = dict(size=(4,)) if preset == "cpu" else {}, dict(kind="rssm", rate=rate)
    return ConfigDict(dict(task=task, seed=0, population=1, fault="", env=env, model=model))
