"""Masks of steps that count."""

import numpy as np
import pytest

from wmjax.ops.masks import predictable_steps


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (1, [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        (3, [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        (6, [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 0]]),
    ],
)
def test_steps_into_another_episode_and_imagined_after_one_do_not_count(context, expected):
    begins = [[], [2], [4], [0, 5]]
    is_first = np.array([[time in row for time in range(6)] for row in begins])
    np.testing.assert_array_equal(predictable_steps(is_first, context), expected)
