"""Recorded rewards that the model's binary digits cannot hold are refused, with what would hold them."""

import jax
import numpy as np
import pytest

from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from experiments.environment_models import data as sequences
from wmjax.models import state_space
from wmjax.run import devices
from wmjax.storage import datasets, workdir
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError

SPEC = EnvSpec(jax.ShapeDtypeStruct((16, 16, 3), np.uint8), ActionSpec(3, True, 0, 2))
LENGTH = 20


def steps(rewards, begins=()):
    """Step [LENGTH, 1] with the rewards from row 1 on; episodes begin at row 0 and at `begins`."""
    is_first = np.isin(np.arange(LENGTH), (0, *begins))[:, None]
    reward = np.zeros((LENGTH, 1), np.float32)
    reward[1 : 1 + len(rewards), 0] = rewards
    return Step(
        prev_action=np.zeros((LENGTH, 1), np.int32),
        obs=np.zeros((LENGTH, 1, *SPEC.obs_shape), np.uint8),
        reward=reward,
        discount=np.ones((LENGTH, 1), np.float32),
        is_first=is_first,
        is_last=np.roll(is_first, -1, axis=0),
    )


@pytest.fixture
def load(tmp_path):
    """A function that records a train and a test shard and loads them."""

    def record_and_load(train, test=(), begins=(), preset="paper", scale=1.0, jump=1, **model):
        index = datasets.open_folder(tmp_path, dict(game="MsPacman"), SPEC)
        for number, rewards in enumerate((train, test)):
            index = datasets.add(tmp_path, index, number, steps(rewards, begins))
        workdir.close_workdir(tmp_path)
        config = configs.get_config(f"{tmp_path},sssm,{preset}")
        config.data.reward_scale = scale
        config.model.update(jump=jump, **model)
        config.train.predicted = 2 * jump
        return sequences.load(agents.read_settings(config), devices.make_mesh("1"))

    return record_and_load


@pytest.mark.parametrize("preset", sorted(configs.PRESETS.keys() - {"cpu_grid"}))
def test_recorded_games_have_digits_for_ghosts(load, preset):
    data = load([10, 1600, -4095], [200], preset=preset)
    np.testing.assert_array_equal(data.train.rows.reward[0, :4], [0, 10, 1600, -4095])
    assert configs.get_config(f"ball,sssm,{preset}").model.reward_digits == 8


def test_grids_have_small_rewards(load):
    """Of every kind of model, among them one whose contexts cannot be padded."""
    load([255, -200, 1], preset="cpu_grid")
    with pytest.raises(UsageError, match="config.model.reward_digits=8: 9 are needed"):
        load([256], preset="cpu_grid")
    chosen = {
        kind: agents.read_settings(configs.get_config(f"data,{kind},cpu_grid")).model for kind in state_space.KINDS
    }
    assert {model.blocks for model in chosen.values()} == {(2, 1)}
    assert {kind for kind, model in chosen.items() if not model.pad_context} == {"ar"}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (
            dict(train=[1600], reward_digits=8),
            "reward_digits=8: 11 are needed for rewards up to 1600 in the train data",
        ),
        (dict(train=[-256], reward_digits=8), "9 are needed for rewards up to 256"),
        (dict(train=[1], test=[4096]), "13 are needed for rewards up to 4096 in the test data of "),
        (dict(train=[100, 100, 100], jump=3, reward_digits=8), "9 are needed for rewards up to 300"),
        (dict(train=[0, 0.5]), "reward of 0.5 in the train data of .*config.data.reward_scale=1.0.*whole"),
        (dict(train=[0.5], scale=3.0), "reward of 0.5.*reward_scale=3.0"),
        (dict(train=[np.nan]), "reward of nan"),
        (dict(train=[1e6], scale=1.0), "20 are needed for rewards up to 1000000.*at most 16.*config.data.reward_scale"),
        (dict(train=[1], scale=0.0), "config.data.reward_scale=0.0: must be finite and above 0"),
        (dict(train=[1], scale=-1.0), "config.data.reward_scale"),
        (dict(train=[1], scale=np.inf), "config.data.reward_scale"),
    ],
)
def test_rewards_that_do_not_fit_are_refused(load, asked, named):
    with pytest.raises(UsageError, match=named) as caught:
        load(**asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (dict(train=[0.1, -0.7], scale=10.0, reward_digits=3), [1, -7]),
        (dict(train=[10, 1600], scale=0.1, reward_digits=8), [1, 160]),
        (dict(train=[255, -255], reward_digits=8), [255, -255]),
        (dict(train=[100, 100, -100], jump=3, reward_digits=8), [100, 100, -100]),
        (dict(train=[0, 0, 0, 200, 0, 200], begins=(5,), jump=3, reward_digits=8), [0, 0, 0, 200, 0, 200]),
    ],
)
def test_rewards_that_fit_once_scaled(load, asked, expected):
    """A jumpy model's are sums inside one episode: in the last case 400 lie in two."""
    reward = load(**asked).train.rows.reward
    np.testing.assert_array_equal(reward[0, 1 : 1 + len(expected)], expected)
