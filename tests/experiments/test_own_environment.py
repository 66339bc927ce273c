"""The examples of docs/own_environment.md: each plays two short episodes, and its agent can be made for them.

Training them is slow; of the one in pure JAX a whole update and a decision are traced, and its check is run.
"""

import importlib
import re
import shlex

import jax
import numpy as np
import pytest

from experiments.training import read_command
from tests import mains
from wmjax import envs
from wmjax.run import check_env, cli
from wmjax.types import image_of

TEXT = (mains.ROOT / "docs/own_environment.md").read_text()
MODULES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.DOTALL))
CHECKS = re.findall(r"^    \.venv/bin/python -m wmjax\.run\.check_env (py:.*)$", TEXT, re.MULTILINE)
LINES = re.findall(r"^    \.venv/bin/python -m experiments\.(.*)$", TEXT.replace("\\\n", ""), re.MULTILINE)
NEEDS = {"py:pendulum": "pygame", "gym:CarRacing": "Box2D", "gym:minigrid": "minigrid"}
KEY = jax.random.key(0)
SHORT = 6  # decisions of an episode
COMPILED = "line_walk"
TINY = {  # beside those of tests/mains.py
    "planet": [
        "--config.env.episode_steps=24",
        "--config.train.seed_episodes=1",
        "--config.train.episodes=2",
        "--config.train.chunk=4",
    ],
    "smaller_world_models": ["--config.train.iterations=1"],
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """The page's modules can be imported."""
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(mains.ROOT)


@pytest.fixture(params=LINES, ids=lambda line: re.search(r"config\.py:([\w:.-]+)", line)[1])
def words(request, modules, monkeypatch):
    """[experiment, flags...] of a command."""
    for name, package in NEEDS.items():
        if f"config.py:{name}" in request.param:
            pytest.importorskip(package)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return shlex.split(request.param)


def test_the_page_has_all_examples():
    assert len(LINES) == 6 and list(MODULES) == ["pendulum", "pendulum_speed", "line_walk"]
    assert all(any(f"config.py:{name}" in line for line in LINES) for name in NEEDS)


def test_example(words):
    experiment, *flags = words
    agent, configs = (importlib.import_module(f"experiments.{experiment}.{name}") for name in ("agent", "config"))
    settings = agent.read_settings(read_command([experiment, *flags], __name__, configs).config)
    task, options, decisions = settings.members[0].task, settings.env, SHORT
    if compiled := envs.make_jax(task, **options):  # as it is
        decisions = compiled.spec.time_limit
    else:
        options = options | dict(episode_steps=SHORT * options.get("action_repeat", 1))
    played = check_env.play(task, options, 1, 0, 2 * decisions + 1)
    steps = played.steps
    assert steps.is_last.sum() >= 2 and np.isfinite(steps.reward).all() and image_of(steps.obs).std() > 1
    made = agent.make_agent(settings, played.spec)
    params = jax.eval_shape(made.learner.init, jax.random.key(0)).params
    shapes = jax.eval_shape(made.model.encode, params, steps.obs)
    assert jax.tree.leaves(shapes)[0].shape[0] == 2 * decisions + 2
    if compiled:
        traces(agent, made, played.spec, settings.train.chunk)


def traces(agent, made, spec, chunk):
    """A whole update of PlaNet on a chunk, and a decision, fit the environment; nothing is compiled."""
    agent.check_update(made.learner, spec, chunk)
    params = jax.eval_shape(made.learner.init, KEY).params
    carry = jax.eval_shape(lambda params: made.actor.initial(params, 1), params)
    step = agent.random_steps(spec, (1,))
    after, action = jax.eval_shape(lambda *args: made.actor.act(*args, True)[:2], params, KEY, carry, step)
    assert after == carry and (action.shape, action.dtype) == (step.prev_action.shape, step.prev_action.dtype)


def test_checks_of_the_page_run(modules, tmp_path, capsys):
    assert CHECKS == [f"py:{COMPILED}:make_env"]
    assert cli.run(check_env.main, ["check_env", CHECKS[0], "--decisions=60", f"--picture={tmp_path}/a.png"]) == 0
    out = capsys.readouterr().out
    assert "uint8 (32, 32, 3)" in out and "50 decisions" in out


@pytest.mark.slow
def test_example_trains(words, tmp_path):
    experiment, *flags = words
    flags = [flag for flag in flags if not flag.startswith("--workdir")]
    tiny = [*mains.FLAGS[experiment][1:], *TINY[experiment]]
    if COMPILED in flags[0]:  # whose images are 32 x 32, whatever is asked for
        tiny = [flag for flag in tiny if not re.match(r"--config\.(env|model\..*coder_widths)", flag)]
        tiny += ["--config.model.encoder_widths=(4,8,8)", "--config.model.decoder_widths=(8,8)"]
        tiny += ["--config.train.replay_rows=60"]
    argv = [experiment, *flags, *tiny, f"--workdir={tmp_path / 'run'}"]
    ended = mains.fork(f"{experiment}.__main__", argv)
    assert ended.code == 0, ended.stderr
    assert np.isfinite(mains.metrics(tmp_path / "run")[-1]["eval/return_mean"])
