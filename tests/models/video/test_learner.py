"""Chunks of the image-predicting models: which steps count, which lengths are refused."""

import jax
import numpy as np
import pytest

from tests.fakes import SPEC, random_steps
from wmjax.models import video
from wmjax.models.video.learner import counted, mean
from wmjax.types import UsageError


def test_steps_into_another_episode_and_imagined_after_one_do_not_count():
    """Context 3: what is shown after a beginning counts again."""
    begins = [[], [2], [4], [0, 5]]
    is_first = np.array([[time in row for time in range(6)] for row in begins])
    expected = [[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    counts = np.asarray(counted(video.VideoConfig(context=3), is_first))
    np.testing.assert_array_equal(counts, expected)
    assert mean(np.float32(expected) * 3, counts) == 3 and mean(np.ones((1, 2)), np.zeros((1, 2))) == 0


@pytest.mark.parametrize(("kind", "time"), [("ot_or", 4), ("ot_or", 6), ("ot_lr", 2)])
def test_chunks_of_another_length_are_refused(kind, time):
    _, learner = video.make(
        video.VideoConfig(kind=kind, filters_divisor=32, reward_widths=(4,), context=2, horizon=3), SPEC
    )
    key = jax.random.key(0)
    with pytest.raises(UsageError, match=f"chunks of {time} rows.*needs"):
        jax.eval_shape(learner.update, jax.eval_shape(learner.init, key), key, random_steps(SPEC, 1, time))
