"""Gradients of PlaNet's losses by the scale of the reward's: the table of a tiny model."""

from experiments.planet import gradients
from tests import mains


def test_the_table_has_a_row_for_every_scale(monkeypatch):
    monkeypatch.setattr(gradients, "SCALES", (10.0,))
    ended = mains.call("planet.gradients", *mains.PLANET, "--episodes=1", "--updates=1")
    assert ended.code == 0, ended.stderr
    _, _, row = ended.stdout.splitlines()
    scale, steps, share = row.strip("| ").split(" | ")
    assert scale == "10" and float(share) > 0
    assert len(steps.split(", ")) == 3 and all(0 < float(step) <= 1 for step in steps.split(", "))
