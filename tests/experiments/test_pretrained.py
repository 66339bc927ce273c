"""What is in pretrained/ loads as the code is now, is told of in its README, and stays small."""

import importlib
import json
import shutil

import jax
import numpy as np
import pytest

from tests.mains import ROOT, call

FOLDER = ROOT / "pretrained"
EXPERIMENTS = dict(
    cartpole_swingup="planet",
    cheetah_run="planet",
    freeway="smaller_world_models",
    minipacman_dssm_det="environment_models",
    mspacman_sssm="environment_models",
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_loads(name):
    loaded = importlib.import_module(f"experiments.{EXPERIMENTS[name]}.agent").load(FOLDER / name)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loaded.params))


def test_each_has_its_line_and_together_they_are_small():
    names = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    text = (FOLDER / "README.md").read_text()
    assert names == EXPERIMENTS.keys() and all(f"`{name}`" in text for name in names)
    committed = [path for name in names for path in (FOLDER / name).rglob("*") if "videos" not in path.parts]
    assert sum(path.stat().st_size for path in committed if path.is_file()) < 10e6


@pytest.mark.slow
def test_the_cheetah_is_evaluated_and_played(tmp_path):
    """It earns what its table promises, far above 10 by chance, and its imagination is filmed."""
    folder = tmp_path / "cheetah"
    shutil.copytree(FOLDER / "cheetah_run", folder)
    assert call("evaluate", f"--workdir={folder}", "--episodes=2", "--film=0").code == 0
    found = json.loads(next(folder.glob("evaluate*.json")).read_text())
    assert found["eval/return_mean"] > 50
    assert call("planet.play", f"--workdir={folder}").code == 0
    assert next((folder / "videos").glob("play_*.mp4")).stat().st_size > 10_000
