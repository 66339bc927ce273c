"""The table of what the reward's scale does, on a tiny model."""

import pytest

from experiments.planet import gradients
from tests import mains


def test_it_prints_a_row_for_every_scale(monkeypatch):
    monkeypatch.setattr(gradients, "SCALES", (10.0,))
    ended = mains.call("planet.gradients", *mains.PLANET, "--updates=1", "--episodes=1")
    assert ended.code == 0, ended.stderr
    scale, steps, share = (cell.strip() for cell in ended.stdout.splitlines()[-1].split("|")[1:-1])
    assert scale == "10" and float(share) > 0
    assert all(0 < float(step) <= 1.01 for step in steps.split(", "))  # Adam's first step is at most the rate


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.population=2", "config.population: one task and one seed"),
        ("--config.train.chunk=100", "config.train.chunk=100: the longest episode in the replay has 13 rows"),
    ],
)
def test_refusals_are_one_line(flag, told):
    ended = mains.call("planet.gradients", *mains.PLANET, flag)
    assert ended.code == 2 and told in ended.stderr and ended.stderr.count("\n") == 1
