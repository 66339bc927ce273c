"""The LSTM's first bias; its step is compared with numpy where it is used."""

import numpy as np

from wmjax.nets.lstm import forget_first


def test_it_begins_by_remembering():
    """Of the gates i, f, g, o the second one is open."""
    np.testing.assert_array_equal(forget_first(None, (8,)), [0, 0, 1, 1, 0, 0, 0, 0])
