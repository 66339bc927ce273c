"""Episodes of every length: how they get into the replay, when they are too short, and what is predicted of them."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.planet import agent as agents
from experiments.planet import phases, predictions
from experiments.planet.config import TrainConfig, get_config
from tests import mains
from tests.fakes import SPEC, random_steps
from wmjax import replay
from wmjax.agents.open_loop import open_loop_images
from wmjax.agents.random import make_random_actor
from wmjax.models import reward_only, rssm
from wmjax.run import devices, pools, replays
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import member
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import checkpoint
from wmjax.train import acting_params, make_phase
from wmjax.types import UsageError

CAPACITY = 40
TINY = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=8, stochastic=4, deterministic=6, hidden=5)


def episode(time, rows=2, seed=0):
    """Step [T, E]: an episode of `time` rows in every environment."""
    steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, rows, time, seed))
    steps.is_last[-1] = True
    return steps


def empty(members):
    example = jax.tree.map(lambda x: x[0], episode(1, 2 // members))
    return replays.make_memory(CAPACITY, 2 // members, example, members, devices.make_mesh("1"))


@pytest.mark.parametrize(("members", "piece"), [(1, 8), (2, 100)])
def test_every_length_goes_into_the_replay_by_one_program(members, piece, monkeypatch):
    """Rows equal those that are added one by one; the fifth episode is longer than the ring."""
    traced, original = [], replay.extend

    def counted(*arguments):
        traced.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(replays, "PIECE", piece)
    expected = memory = empty(members)
    add = jax.jit(jax.vmap(replay.add))
    for i, time in enumerate((13, 11, 31, 6, CAPACITY + 9, 1)):
        for step in (jax.tree.map(lambda x, t=t: x[t], episode(time, seed=i)) for t in range(time)):
            expected = add(expected, jax.tree.map(lambda x: x.reshape(members, -1, *x.shape[1:]), step))
    memory = empty(members)
    with monkeypatch.context() as patched:
        patched.setattr(replay, "extend", counted)
        extend = replays.make_extend(memory)
        for i, time in enumerate((13, 11, 31, 6, CAPACITY + 9, 1)):
            memory = extend(memory, episode(time, seed=i))
    jax.tree.map(np.testing.assert_array_equal, memory, expected)
    assert len(traced) == 1


def test_short_episodes_are_refused_only_where_no_chunk_fits():
    extend, memory = replays.make_extend(empty(2)), empty(2)
    for time in (4, 3):
        memory = extend(memory, episode(time))
    train = TrainConfig(chunk=6)
    with pytest.raises(UsageError, match="config.train.chunk=6: the longest episode in the replay has 4 rows"):
        agents.check_chunk(train, memory)
    agents.check_chunk(TrainConfig(chunk=6, within_episodes=False), memory)
    with pytest.raises(UsageError, match="chunk=8: the replay has 7 rows"):
        agents.check_chunk(TrainConfig(chunk=8, within_episodes=False), memory)
    agents.check_chunk(train, extend(memory, episode(6)))


def test_predictions_of_every_length_have_one_program(monkeypatch):
    """And are those of the episode alone: nothing before a row depends on the padding after it."""
    traced = []

    def counted(*arguments, **settings):
        traced.append(arguments)
        return open_loop_images(*arguments, **settings)

    monkeypatch.setattr(predictions, "open_loop_images", counted)
    tiny = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=8, stochastic=4, deterministic=6, hidden=5)
    model, learner = rssm.make(rssm.RSSMConfig(reward_units=5, **tiny), SPEC)
    params = jax.jit(learner.init)(jax.random.key(0)).params
    predict = predictions.make_predict(agents.Agent(model, learner, None), SPEC)
    steps = episode(predictions.PREDICTED, 1)
    whole = predict(params, jax.random.key(1), steps)
    assert whole.shape == (predictions.PREDICTED, *SPEC.obs_shape)
    for time in (1, predictions.CONTEXT, 13):
        short = predict(params, jax.random.key(1), jax.tree.map(lambda x, time=time: x[:time], steps))
        np.testing.assert_array_equal(short, whole[:time])
    assert len(traced) == 1


def test_a_model_without_images_is_evaluated_without_pictures_of_them(tmp_path):
    env = pools.join_envs(
        agents.read_settings(get_config("fake:counter,cpu")).members, 2, dict(size=16), purpose="test"
    )
    model, learner = reward_only.make(reward_only.RewardOnlyConfig(), env.spec)
    predict = predictions.make_predict(agents.Agent(model, learner, None), env.spec)
    player = make_player(make_random_actor(env.spec.action), 2, explore=True)
    keys = jax.random.key(0)[None]
    (row,), _ = predictions.evaluate([tmp_path], "one", env, player, predict, np.zeros(1), keys)
    assert {"eval/return_mean", "eval/return_0", "eval/return_1"} <= set(row)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["one.mp4"]


@pytest.mark.parametrize(
    ("horizon", "chunk", "named"),
    [
        (3, 6, "planner horizon 3: .* 4 steps at once"),
        (4, 3, "reward_horizon 4: chunks have only 3 rows"),
    ],
)
def test_horizons_and_chunks_that_a_model_does_not_take_are_refused_at_the_start(horizon, chunk, named):
    settings = agents.read_settings(get_config("fake:counter,cpu"))
    model = rssm.RSSMConfig(reward_from="images", reward_horizon=4, reward_widths=(4,), **TINY)
    planner, train = dataclasses.replace(settings.planner, horizon=horizon), TrainConfig(chunk=chunk)
    with pytest.raises(UsageError, match=named):
        agents.make_agent(settings._replace(model=model, planner=planner, train=train), SPEC)


def test_first_episode_ends_where_it_ends():
    two = jax.tree.map(lambda a, b: np.concatenate([a, b]), episode(4), episode(9, seed=1))
    found = predictions.first_episode(two, 50)
    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(lambda x: x[:4, :1], two))
    assert predictions.first_episode(two, 3).reward.shape == (3, 1)
    two.is_last[:] = False
    assert predictions.first_episode(two, 50).reward.shape == (13, 1)


def test_a_run_keeps_its_short_episodes(tmp_path):
    """About a third of them have fewer rows than a chunk."""
    flags = ("--config=experiments/planet/config.py:fake:terminating,cpu", "--config.env.episode_steps=30")
    flags += ("--config.train.chunk=25", "--config.train.replay_rows=100", "--config.train.episodes=12")
    flags += ("--config.train.seed_episodes=4", "--config.evaluation.every=12", "--config.train.checkpoint_every=12")
    ended = mains.start(tmp_path / "run", *flags)
    assert ended.code == 0, ended.stderr
    lengths = [len(rows["reward"]) for rows in mains.state(tmp_path / "run")[1]]
    assert len(lengths) == 12 and min(lengths) < 25 <= max(lengths)


def test_observations_that_are_dicts_go_all_the_way(tmp_path):
    """Played, kept on disk and in the replay, learnt from and evaluated: as with the image alone, bit for bit."""
    settings = agents.read_settings(get_config("fake:counter,cpu"))
    train = dataclasses.replace(settings.train, batch=2, chunk=5)
    settings = settings._replace(model=rssm.RSSMConfig(reward_units=5, **TINY), train=train)
    results = []
    for options in ({}, dict(observe="image+state")):
        settings = settings._replace(env=dict(size=16) | options)
        env = pools.join_envs(settings.members, 2, settings.env)
        agent = agents.make_agent(settings, env.spec)
        player = make_player(make_random_actor(env.spec.action), 2, explore=True)
        steps, _ = play_episodes(env, player, np.zeros(1), jax.random.key(0)[None], Stopwatch())
        checkpoint.append_rows(tmp_path / str(len(results)), 0, steps)
        (kept,) = checkpoint.load_rows(tmp_path / str(len(results)), 1)
        jax.tree.map(np.testing.assert_array_equal, steps, kept)
        mesh = devices.make_mesh("1")
        memory = replays.make_memory(20, 2, jax.tree.map(lambda x: x[0], kept), 1, mesh)
        memory = replays.make_extend(memory)(memory, kept)
        state = jax.vmap(agent.learner.init)(jax.random.key(1)[None])
        phase = make_phase(phases.make_update(agent.learner, train, mesh))
        state, metrics = phase(state, memory, jax.random.split(jax.random.key(2), (2, 1)))
        predict = predictions.make_predict(agent, env.spec)
        images = predict(
            jax.tree.map(lambda x: x[0], acting_params(state)), jax.random.key(3), member(kept, (slice(None), slice(1)))
        )
        results.append((metrics, images))
    jax.tree.map(np.testing.assert_array_equal, *results)
