"""A user's own environments by name: gymnasium's registry, a function in a module, PlaNet on one of them, refusals."""

import os
import sys

import gymnasium
import numpy as np
import pytest

from experiments.planet import config as planet_config
from experiments.smaller_world_models import config as smaller_world_models_config
from tests import mains
from wmjax import envs
from wmjax.envs import own
from wmjax.types import UsageError

MODULE = '''
"""A point on a line that is pushed left and right."""

import gymnasium
import numpy as np


class Line(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-8, 8)
        return np.float32([self.place]), {}

    def step(self, action):
        self.place = float(np.clip(self.place + action[0], -9, 9))
        return np.float32([self.place]), -abs(self.place), False, False, {}

    def render(self):
        image = np.zeros((30, 40, 3), np.uint8)
        image[:, int(20 + 2 * self.place)] = 255
        return image


gymnasium.register("Line-v0", Line, max_episode_steps=6)
gymnasium.register("Lost-v0", "line_world_of_nobody:Line")
number = 3


def make_seedless():
    return make_env(0)


def make_env(seed):
    return gymnasium.make("Line-v0", render_mode="rgb_array")
'''


@pytest.fixture
def line_world(tmp_path, monkeypatch):
    """A folder with the module above as the current one; everything is as before afterwards."""
    (tmp_path / "line_world.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("line_world", None)
    for name in ("Line-v0", "Lost-v0"):
        gymnasium.registry.pop(name, None)


@pytest.mark.parametrize("name", ["py:line_world:make_env", "gym:line_world:Line-v0"])
def test_both_families_play(line_world, name):
    env = envs.make(name, 2, 1, size=16, grey=True, action_repeat=2)
    assert env.spec.obs_shape == (16, 16, 1) and env.spec.action == (1, False, -1.0, 1.0) and env.spec.time_limit == 3
    step = env.reset()
    assert step.obs.max() > 0 and (step.obs[0] != step.obs[1]).any()
    steps = [env.step(np.ones((2, 1))) for _ in range(4)]
    assert [bool(x.is_last.all()) for x in steps] == [False, False, True, False] and steps[3].is_first.all()
    assert all((x.discount == 1).all() for x in steps)
    snapshot = env.snapshot()
    np.testing.assert_array_equal(envs.make(name, 2, 1, size=16, grey=True).restore(snapshot).obs, steps[3].obs)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gym:line_world:Lin-v0", {}, "unknown gymnasium id 'Lin-v0'. Did you mean Line-v0"),
        ("gym:NoSuchThing-v3", {}, "unknown gymnasium id 'NoSuchThing-v3'"),
        ("gym:line_word:Line-v0", {}, "No module named 'line_word'; modules are looked for in"),
        ("gym:line_world:Line-v0", dict(shadow_size=64), "unknown gym option 'shadow_size'"),
        ("gym:line_world:Lost-v0", {}, "gym:Lost-v0 cannot be made: .*line_world_of_nobody"),
        ("py:line_world:make", {}, "unknown function of line_world 'make'. Did you mean make_env"),
        ("py:line_world:number", {}, "unknown function of line_world 'number'"),
        ("py:line_world:make_seedless", {}, r"must take a seed, as make_seedless\(seed\) -> environment"),
        ("py:line_world", {}, "give py:my_package.module:function"),
        ("py:line_world:make_env", dict(size=4), "size=4"),
        ("py:line_world:make_env", dict(image_key=None), "image_key=None"),
    ],
)
def test_refusals(line_world, name, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        envs.make(name, 1, 0, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("configs", [planet_config, smaller_world_models_config])
def test_runs_may_change_the_options_of_workers(configs):
    env = configs.get_config("py:tests.gym_walk:GridWalk,cpu").env
    for name in ("workers", "seconds", "failures"):
        default = own.OwnOptions._field_defaults[name]
        assert (type(env[name]), env[name]) == (type(default), default) and f"env.{name}" in configs.MAY_DIFFER


def test_an_environment_that_needs_another_package_names_it(line_world, monkeypatch):
    def make(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed, run `pip install pygame`")

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(UsageError, match="gym:Line-v0 needs another package: pygame is not installed, run `pip"):
        envs.make("gym:line_world:Line-v0", 1, 0)


def test_planet_trains_on_a_users_own_environment(tmp_path):
    config = "--config=experiments/planet/config.py:py:tests.gym_walk:GymWalk,cpu"
    ended = mains.start(tmp_path / "a", config, "--config.train.chunk=2")
    assert ended.code == 0, ended.stderr
    rows = mains.metrics(tmp_path / "a")
    assert rows[-1]["episodes"] == 5 and np.isfinite(rows[-1]["eval/return_mean"])
    assert os.path.exists(tmp_path / "a" / "report.html")
