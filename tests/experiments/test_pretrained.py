"""What is in pretrained/ loads as the code is now, is told of in its README, and stays small."""

import importlib

import jax
import numpy as np
import pytest

from tests.mains import ROOT

FOLDER = ROOT / "pretrained"
EXPERIMENTS = dict(
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
