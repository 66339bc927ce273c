"""Metrics of many updates."""

import numpy as np
import pytest

from wmjax.report.metrics import appended, of_its_task
from wmjax.types import UsageError


def test_values_of_further_updates_follow_those_before():
    columns = appended({}, dict(loss=np.array([3.0, 2.0])))
    columns = appended(columns, dict(loss=np.array([1.0])))
    np.testing.assert_array_equal(columns["loss"], [3.0, 2.0, 1.0])


def test_a_task_of_several_has_its_own_returns_and_steps():
    rows = [{"env_steps": 30}, {"env_steps": 60, "eval/return_mean": 5.0, "eval/a/return_mean": 2.0}]
    rows[1] |= {"eval/b_c/return_mean": 8.0, "collect/d/return": 1.0}
    found = of_its_task(rows, "b_c")
    assert [row["env_steps"] for row in found] == [10, 20] and found[1]["eval/return_mean"] == 8.0
    assert of_its_task(rows, "") == rows and of_its_task(rows[:1], "b_c") == rows[:1]
    with pytest.raises(UsageError, match="task 'e': the agent plays a, b_c, d"):
        of_its_task(rows, "e")
