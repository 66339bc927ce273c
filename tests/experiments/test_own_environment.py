"""The examples of docs/own_environment.md: each plays two short episodes, and its agent can be made for them."""

import importlib
import re
import shlex

import jax
import numpy as np
import pytest

from experiments.training import read_command
from tests import mains
from wmjax import envs
from wmjax.run import check_env
from wmjax.types import image_of

TEXT = (mains.ROOT / "docs/own_environment.md").read_text()
MODULES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.DOTALL))
LINES = re.findall(r"^    \.venv/bin/python -m experiments\.(.*)$", TEXT.replace("\\\n", ""), re.MULTILINE)
NEEDS = {"py:pendulum": "pygame", "gym:CarRacing": "Box2D", "gym:minigrid": "minigrid"}
SHORT = 6  # decisions of an episode
TINY = {  # beside those of tests/mains.py
    "planet": [
        "--config.env.episode_steps=24",
        "--config.train.seed_episodes=1",
        "--config.train.episodes=2",
        "--config.train.chunk=4",
    ],
    "smaller_world_models": ["--config.train.iterations=1"],
}


@pytest.fixture(params=LINES, ids=lambda line: re.search(r"config\.py:([\w:.-]+)", line)[1])
def words(request, tmp_path, monkeypatch):
    """[experiment, flags...] of a command, in whose folder the page's modules are."""
    for name, package in NEEDS.items():
        if f"config.py:{name}" in request.param:
            pytest.importorskip(package)
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(mains.ROOT)
    return shlex.split(request.param)


def test_the_page_has_all_examples():
    assert len(LINES) == 6 and list(MODULES) == ["pendulum", "pendulum_speed", "line_walk"]
    assert all(any(f"config.py:{name}" in line for line in LINES) for name in NEEDS)


def test_example(words):
    experiment, *flags = words
    agent, configs = (importlib.import_module(f"experiments.{experiment}.{name}") for name in ("agent", "config"))
    chosen = agent.settings(read_command([experiment, *flags], __name__, configs).config)
    task, options, decisions = chosen.members[0].task, chosen.env, SHORT
    if compiled := envs.make_jax(task, **options):  # as it is
        decisions = compiled.spec.time_limit
    else:
        options = options | dict(episode_steps=SHORT * options.get("action_repeat", 1))
    played = check_env.play(task, options, 1, 0, 2 * decisions + 1)
    steps = played.steps
    assert steps.is_last.sum() >= 2 and np.isfinite(steps.reward).all() and image_of(steps.obs).std() > 1
    made = agent.make_agent(chosen, played.spec)
    params = jax.eval_shape(made.learner.init, jax.random.key(0)).params
    shapes = jax.eval_shape(made.model.encode, params, steps.obs)
    assert jax.tree.leaves(shapes)[0].shape[0] == 2 * decisions + 2


@pytest.mark.slow
def test_example_trains(words, tmp_path):
    experiment, *flags = words
    flags = [flag for flag in flags if not flag.startswith("--workdir")]
    if "line_walk" in flags[0]:
        pytest.skip("a tiny run's images are smaller, and those of a JaxEnv are as they are")
    ended = mains.start(tmp_path / "run", *flags, *TINY[experiment], experiment=experiment)
    assert ended.code == 0, ended.stderr
    assert np.isfinite(mains.metrics(tmp_path / "run")[-1]["eval/return_mean"])
