"""Checks of the stub's settings."""

from types import SimpleNamespace

from wmjax.run.members import make_members
from wmjax.types import UsageError


def read_settings(config):
    """Refuses kinds that there are not."""
    if config.model.kind not in ("rssm", "ssm", "rnn"):
        raise UsageError(f"config.model.kind={config.model.kind!r}: choose one of rssm, ssm, rnn")
    return SimpleNamespace(members=make_members(config.task, config.seed, config.population), env={})
