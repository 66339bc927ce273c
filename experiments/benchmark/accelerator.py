"""The accelerator report: what is in it, in which order, and the goals that it stands beside.

    make accelerator-report
    python -m experiments.benchmark --preset=accelerator --page=accelerator.html --json=accelerator.json

It needs no network, no environment package and no data. `--dry` runs every row with tiny sizes, once, on whatever
platform there is: that shows that nothing is missing before a GPU is rented; its times mean nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.rows import Row
from wmjax import backend

PARTS = "device planner train profile equality learning population dream rollout memory".split()  # what matters first
MINUTES = 8.0
DRY_SIDE = 64  # of the matrix product beside each row of a dry run


class Goal(NamedTuple):
    """A limit for a row on a GPU."""

    part: str
    names: tuple[str, ...]  # what the row's name begins with, in a dry run too
    text: str
    below: float
    value: Callable[[Row, Sequence[Row]], float]  # of the row and those before it


def times_one_member(row: Row, before: Sequence[Row]) -> float:
    """Time of a population's update over that of one member's."""
    one_member = next(done for done in before if done["part"] == "population" and done.get("members") == 1)
    return row["ms"] / one_member["ms"]


GOALS = (
    Goal("planner", ("rssm, 1 env",), "under 3 ms", 3.0, lambda row, before: row["ms"]),
    Goal("planner", ("rssm, 16 envs",), "under 0.4 ms an environment", 0.4, lambda row, before: row["ms"] / 16),
    Goal("train", ("update, 50 x 50", "update, 2 x 3"), "under 12 ms", 12.0, lambda row, before: row["ms"]),
    Goal("population", ("8 members",), "under twice one", 2.0, times_one_member),
)


def with_goal(row: Row, before: Sequence[Row], dry: bool) -> Row:
    """The row with its goal, if it has one: "goal" its text and, of a GPU's own sizes, "reached" whether it was."""
    for goal in GOALS:
        if row["part"] == goal.part and row["name"].startswith(goal.names):
            row = row | dict(goal=goal.text)
            if backend.name() == "gpu" and not dry and "ms" in row:
                row |= dict(reached=reached(goal, row, before))
    return row


def reached(goal: Goal, row: Row, before: Sequence[Row]) -> bool | None:
    """Whether a measured row reached its goal; None where what it is compared with was not measured."""
    try:
        return goal.value(row, before) < goal.below
    except (KeyError, StopIteration):
        return None


def verdict(row: dict[str, Any]) -> str:
    """What a page says of a row's goal; "" where it has none."""
    if "goal" not in row:
        return ""
    words = {True: "reached", False: "missed", None: "cannot be told"}
    return f"{row['goal']}: {words[row['reached']]}" if "reached" in row else f"{row['goal']} (a goal for GPUs)"
