"""Actions as the models see them."""

import numpy as np

from wmjax.ops.actions import model_action
from wmjax.types import ActionSpec


def test_model_action():
    discrete = model_action(np.int32([[2, 0], [1, 1]]), ActionSpec(3, True, 0, 2))
    np.testing.assert_array_equal(discrete, np.float32([[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]]]))
    continuous = model_action(np.float64([[0.5, -1]]), ActionSpec(2, False, -1.0, 1.0))
    np.testing.assert_array_equal(continuous, np.float32([[0.5, -1]]))
    assert discrete.dtype == continuous.dtype == np.float32
