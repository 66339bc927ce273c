"""The video of an episode beside its imagination."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.planet import play
from wmjax.types import UsageError

TRUTH = np.arange(7, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(6, 2).repeat(3, 3)  # [7, 4, 6, 3]


def test_errors_are_told_by_the_decisions_since_the_restart():
    imagined = TRUTH + np.array([0, 10, 20, 2, 30, 40, 4], np.uint8)[:, None, None, None]
    assert play.errors(TRUTH, imagined, 3) == pytest.approx({0: 2.0, 1: 20.0, 2: 30.0})
    assert play.errors(TRUTH, imagined, 50) == pytest.approx({0: 0.0, 3: 2.0, 6: 4.0})


def test_frames_stand_side_by_side_above_the_bar():
    imagined = TRUTH + np.uint8(100)
    frames = play.frames(TRUTH, imagined, 3)
    assert frames.shape == (7, 4 + 2, 3 * 6 + 2 * 2, 3)
    for t, frame in enumerate(frames):
        assert (frame[:4, :6] == t).all() and (frame[:4, 8:14] == t + 100).all() and (frame[:4, 16:] == 100).all()
        orange = (frame[5] == (230, 120, 20)).all(axis=-1)
        assert np.flatnonzero(orange).tolist() == list(range(8, 8 + 6 * (t % 3 + 1) // 3))


@pytest.mark.parametrize("flags", [[], ["--interactive", "--port=0"]])
def test_a_model_without_images_is_refused(flags, tmp_path, monkeypatch):
    """Such as `r` and `r_ll` of the trade-offs study."""
    agent = SimpleNamespace(model=SimpleNamespace(decode=None))
    monkeypatch.setattr(play, "load", lambda *args: SimpleNamespace(agent=agent, episodes=0, updates=0))
    with pytest.raises(UsageError, match="predicts no images"):
        play.main(["play", f"--workdir={tmp_path}", *flags])
