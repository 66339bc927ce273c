"""Chunks of the image-predicting models: which steps count, which lengths are refused."""

import jax
import numpy as np
import pytest

from tests.fakes import SPEC, random_steps
from wmjax.models import video
from wmjax.models.video.learner import mean
from wmjax.types import UsageError


def test_means_are_over_the_steps_that_count():
    counts = np.array([[True, False], [True, True]])
    assert mean(np.where(counts, 3.0, 9.0), counts) == 3 and mean(np.ones((1, 2)), np.zeros((1, 2), bool)) == 0


@pytest.mark.parametrize(("kind", "time"), [("ot_or", 4), ("ot_or", 6), ("ot_lr", 2)])
def test_chunks_of_another_length_are_refused(kind, time):
    _, learner = video.make(
        video.VideoConfig(kind=kind, filters_divisor=32, reward_widths=(4,), context=2, horizon=3), SPEC
    )
    key = jax.random.key(0)
    with pytest.raises(UsageError, match=f"chunks of {time} rows.*needs"):
        jax.eval_shape(learner.update, jax.eval_shape(learner.init, key), key, random_steps(SPEC, 1, time))
