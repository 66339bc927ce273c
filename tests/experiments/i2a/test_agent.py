"""The model that an agent asks, as it is made of a run; and what its pictures tell."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.environment_models import agent as world_models
from experiments.environment_models import config as model_configs
from experiments.i2a import agent, config, predictions
from wmjax.agents import i2a
from wmjax.agents.i2a import I2AConfig
from wmjax.envs import make_jax
from wmjax.models import state_space
from wmjax.types import Step, UsageError


@pytest.fixture(scope="module")
def loaded():
    """The model of a finished run on hunt, whose data's rewards were ten times the game's, and that sees no actions."""
    spec = make_jax("minipacman:hunt", maze="9x11").spec
    told = model_configs.get_config("ball,sssm,cpu_grid")
    told.model.update(channels=8, encoder_width=8, decoder_width=8, sees_actions=False)
    told.data.reward_scale = 10.0
    settings = world_models.read_settings(told)
    model, learner = state_space.make(settings.model, spec)
    params = jax.jit(learner.init)(jax.random.key(0)).params
    return world_models.Loaded(model, params, settings, spec, settings.train.updates)


@pytest.fixture
def modulation(loaded, monkeypatch):
    """(Settings, World) of an agent that asks it."""
    monkeypatch.setattr(agent.world_models, "load", lambda folder: loaded)
    monkeypatch.setattr(agent, "check_data", lambda *args: None)
    told = config.get_config("minipacman:hunt,modulation,cpu")
    told.update(model_run="/nowhere")
    settings = agent.read_settings(told)
    return settings, agent.world_of_run(settings, loaded.spec, jax.random.key(1))


def test_imagined_rewards_are_the_games_own_points(loaded, modulation):
    _, world = modulation
    state = loaded.model.initial(loaded.params, 2)
    state = state.replace(state=1.0 + state.state)
    expected = loaded.model.reward(loaded.params, state) / 10
    assert np.array_equal(world.query.model.reward(world.params, state), expected) and expected.all()


def test_pictures_are_of_the_part_that_the_agent_trains(modulation, tmp_path, monkeypatch):
    settings, world = modulation
    shown = []
    show = lambda params, key, obs: shown.append(params) or np.zeros((5, predictions.STEPS, 9, 11, 3), np.uint8)
    monkeypatch.setattr(predictions, "try_drawing", lambda *args: None)
    trained = dict(prior=jax.tree.map(lambda x: np.asarray(x) + 1, world.params["prior"]))
    none = np.zeros((8, 1))
    film = Step(none, np.zeros((8, 1, 9, 11, 3), np.uint8), none, none, none > 0, none > 0)
    predictions.draw(show, settings, world, trained, tmp_path, 1, None, film)
    assert jax.tree.all(jax.tree.map(np.array_equal, shown[0], world.params | trained))
    assert not jax.tree.all(jax.tree.map(np.array_equal, shown[0], world.params))


def test_rollout_policies_see_the_state_alone(modulation):
    """Latents are 0 in the states where one learns to imitate, so their weights would stay as they began."""
    _, world = modulation
    for kind, channels in (("distilled", 8), ("pixels", 3)):
        told = config.get_config(f"minipacman:hunt,{kind},cpu")
        told.update(model_run="/nowhere")
        asking = agent.read_settings(told)
        query = agent.query_of(asking, world)
        made = i2a.make_agent(asking.agent, make_jax("minipacman:hunt", maze="9x11").spec, query)
        shapes = jax.eval_shape(made.init, jax.random.key(0))["rollout_policy"]
        kernels = [x.shape[2] for x in jax.tree.leaves(shapes) if len(x.shape) == 4]
        assert channels in kernels and 12 not in kernels


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (dict(actions=[0, 2, 3, 4, 5]), None),
        (dict(actions=[0, 1, 2, 3, 4]), r"of the actions \(0, 1, 2, 3, 4\), and the environment has \(0, 2, 3, 4, 5\)"),
        (dict(full_action_set=True), "a model of the actions"),
    ],
)
def test_models_of_other_actions_are_refused(env, message, tmp_path):
    """Sets of equal size too: their numbers would be taken for each other."""
    (tmp_path / "config.json").write_text(json.dumps(dict(game="atari:MsPacman", env=env)))
    told = config.get_config("MsPacman,uniform,cpu_games")
    told.model_run = "/nowhere"
    settings = agent.read_settings(told)
    if message is None:
        return agent.check_data(settings, str(tmp_path))
    with pytest.raises(UsageError, match=message):
        agent.check_data(settings, str(tmp_path))


def test_an_unfinished_model_is_refused(loaded, modulation, monkeypatch):
    settings, _ = modulation
    monkeypatch.setattr(agent.world_models, "load", lambda folder: loaded._replace(updates=loaded.updates - 1))
    with pytest.raises(UsageError, match="config.model_run=/nowhere: unfinished, 5999 of 6000 updates"):
        agent.world_of_run(settings, loaded.spec, jax.random.key(1))


def test_a_model_whose_state_no_action_changes_is_refused(loaded, modulation, monkeypatch):
    settings, _ = modulation
    blind = loaded.settings._replace(model=dataclasses.replace(loaded.settings.model, kind="vae", sees_actions=True))
    monkeypatch.setattr(agent.world_models, "load", lambda folder: loaded._replace(settings=blind))
    with pytest.raises(UsageError, match="config.model_run=/nowhere: is a vae, whose state no action changes"):
        agent.world_of_run(settings, loaded.spec, jax.random.key(1))


def test_pixels_need_two_widths_for_their_rollout_policy():
    with pytest.raises(UsageError, match="agent widths, policy_widths"):
        I2AConfig(pixels=True, policy_widths=(8,))


def test_actions_have_the_names_of_their_environment():
    def names(task, **env):
        told = config.get_config(f"{task},model_free,cpu_games")
        return predictions.names_of(agent.read_settings(told)._replace(env=env), 3)

    assert names("Pong", actions=(0, 3, 4)) == ["noop", "right", "left"]
    assert names("Pong")[:3] == ["noop", "fire", "right"]
    assert names("py:my_module:make_env") == ["action 0", "action 1", "action 2"]
