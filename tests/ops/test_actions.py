"""Actions as the models see them."""

import numpy as np
import pytest

from wmjax.ops.actions import model_action
from wmjax.types import ActionSpec

DISCRETE, CONTINUOUS = ActionSpec(3, True, 0, 2), ActionSpec(2, False, -1.0, 1.0)


def test_model_action():
    discrete = model_action(np.int32([[2, 0], [1, 1]]), DISCRETE)
    np.testing.assert_array_equal(discrete, np.float32([[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]]]))
    continuous = model_action(np.float64([[0.5, -1]]), CONTINUOUS)
    np.testing.assert_array_equal(continuous, np.float32([[0.5, -1]]))
    assert discrete.dtype == continuous.dtype == np.float32


@pytest.mark.parametrize("action, spec", [(np.float32([0, 1.7]), DISCRETE), (np.int32([[0, 1, 2]]), CONTINUOUS)])
def test_actions_of_another_kind_are_refused(action, spec):
    """One-hot rows of what is no number of an action would be zeros."""
    with pytest.raises(AssertionError):
        model_action(action, spec)
