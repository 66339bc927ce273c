"""Published returns on the tasks of the control suite: the tables in published/, which name their sources."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.published import read

FOLDER = pathlib.Path(__file__).parent / "published"


def published(name: str = "hafner_2019") -> dict[str, dict[str, float]]:
    """{task: {agent: return}} of one table."""
    return read(FOLDER / f"{name}.csv")


def references(task: str, env: Mapping[str, Any]) -> dict[str, float]:
    """Returns to compare a run's own with, {name: return}; {} where none are published.

    Args: task: full name of an environment; env: its options. Shorter episodes have other returns.
    """
    found = published().get(task.removeprefix("dmc:"))
    if found is None or "episode_steps" in env:
        return {}
    return {"PlaNet, 1,000 episodes": found["planet"]}
