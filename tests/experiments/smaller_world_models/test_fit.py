"""Fits to recorded random play: what the model is asked about, what is refused, and the whole command."""

import json

import numpy as np
import pytest

from experiments.smaller_world_models import fit
from tests import mains
from wmjax.types import Step


def test_held_out_frames_are_stacked_as_the_model_sees_them():
    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1, 1) * np.ones((1, 2, 2, 2, 1), np.uint8)  # [T, E, X, Y, C]
    rows, first = np.zeros((5, 2), np.float32), np.zeros((5, 2), bool)
    first[3, 1] = True
    seen = fit.as_seen(Step(rows, frames, rows, rows, first, first), 2)
    assert seen.obs.shape == (4, 2, 2, 2, 2) and seen.reward.shape == (4, 2)
    np.testing.assert_array_equal(seen.obs[:, 0, 0, 0], [[0, 1], [1, 2], [2, 3], [3, 4]])
    np.testing.assert_array_equal(seen.obs[:, 1, 0, 0], [[0, 1], [1, 2], [3, 3], [3, 4]])


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.devices=2", "config.devices=2: a model is fitted on 1"),
        (
            "--config.train.dynamics_chunk=500",
            "config.train.dynamics_chunk=500: with 2 frames an episode needs 501 rows",
        ),
    ],
)
def test_refusals_are_one_line(flag, told):
    ended = mains.call("smaller_world_models.fit", *mains.SMALLER_WORLD_MODELS, "--decisions=1000", flag)
    assert ended.code == 2 and told in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_model_of_stacks_is_fitted_and_asked():
    own = ["--updates=20", "--decisions=1000", "--points=1"]
    ended = mains.fork("smaller_world_models.fit", ["fit", *mains.SMALLER_WORLD_MODELS, *own])
    assert ended.code == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert rows[0]["updates"] == 20 and 0 <= rows[1]["open_loop/accuracy"] <= 1
