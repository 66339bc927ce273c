"""The published tables agree with each other: what can be computed from two of them is the third."""

import pathlib

import numpy as np
import pytest

from experiments import trade_offs
from experiments.published import read
from wmjax.report.statistics import pearson

FOLDER = pathlib.Path(trade_offs.__file__).parent / "published"
DESIGNS = ("r", "ot_or", "ot_lr", "lt_lr", "lt_or")
TASKS = tuple(read(FOLDER / "online_scores.csv")["r"])


def table(name, designs=DESIGNS):
    """Numbers [designs, tasks]."""
    rows = read(FOLDER / f"{name}.csv")
    return np.array([[rows[design][task] for task in TASKS] for design in designs])


def test_correlations_of_table_2():
    """Printed with two digits, cut or rounded."""
    errors, scores, (printed,) = table("reward_errors"), table("offline_scores"), table("reward_errors", ["rho"])
    found = [pearson(*pair)[0] for pair in zip(errors.T, scores.T, strict=True)]
    np.testing.assert_allclose(found, printed, atol=0.011)


def test_differences_of_table_5():
    difference = np.abs(np.round(table("offline_scores")) - table("online_scores"))
    np.testing.assert_allclose(difference, table("differences"), atol=1)


def test_scores_by_cost_of_table_7():
    seconds = [[read(FOLDER / "cost.csv")[design]["inference_s"]] for design in DESIGNS]
    np.testing.assert_allclose(table("online_scores") / np.array(seconds), table("scores_by_cost"), atol=0.1)


@pytest.mark.parametrize("task", TASKS)
def test_one_correlation_of_seven_says_something(task):
    """Of five designs: below 0.878 the interval has 0 in it."""
    column = TASKS.index(task)
    _, low, high = pearson(table("reward_errors")[:, column], table("offline_scores")[:, column])
    assert (low < 0 < high) == (task != "cheetah_run")
