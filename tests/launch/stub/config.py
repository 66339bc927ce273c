"""Settings of the stub. fault: how a run ends, as `__main__` reads it."""

from ml_collections import ConfigDict


def get_config(argument=""):
    """The config of "task,preset"."""
    task, _, _ = argument.partition(",")
    return ConfigDict(dict(task=task, seed=0, population=1, fault="", env=dict(size=(4,)), model=dict(kind="rssm")))
