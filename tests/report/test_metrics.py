"""Metrics of many updates."""

import numpy as np

from wmjax.report.metrics import appended


def test_values_of_further_updates_follow_those_before():
    columns = appended({}, dict(loss=np.array([3.0, 2.0])))
    columns = appended(columns, dict(loss=np.array([1.0])))
    np.testing.assert_array_equal(columns["loss"], [3.0, 2.0, 1.0])
