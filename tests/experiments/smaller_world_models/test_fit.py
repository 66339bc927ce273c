"""What the fit of a world model to recorded play refuses."""

import pytest

from tests import mains


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
