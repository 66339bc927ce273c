"""Designs of every family go through PlaNet's main."""

import pytest

from tests import mains


@pytest.mark.parametrize("design", ["r", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lt_or", "ot_lr"))])
def test_a_design_is_trained_and_evaluated(design, tmp_path):
    config = f"--config=experiments/trade_offs/config.py:fake:counter,{design},smoke"
    ended = mains.fork("planet.__main__", ["planet", config, f"--workdir={tmp_path}/run", "--config.train.episodes=4"])
    assert ended.code == 0, ended.stderr
    last = mains.metrics(tmp_path / "run")[-1]
    assert last["updates"] == 8 and "eval/return_mean" in last and "train/reward_loss" in last
    assert (tmp_path / "run" / "evaluation").is_dir()
    pictures = [path.name for path in (tmp_path / "run" / "videos").glob("open_loop_*")]
    assert bool(pictures) == (design != "r")
