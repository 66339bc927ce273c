"""Episodes of every length: how they get into the replay, when they are too short, and what is predicted of them."""

import jax
import numpy as np
import pytest

from experiments.planet import parts
from experiments.planet.config import TrainConfig
from tests import mains
from tests.fakes import SPEC, random_steps
from wmjax import replay
from wmjax.agents.open_loop import open_loop_images
from wmjax.models import rssm
from wmjax.run import devices, replays
from wmjax.types import UsageError

CAPACITY = 40


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
        parts.check_chunk(train, memory)
    parts.check_chunk(TrainConfig(chunk=6, within_episodes=False), memory)
    with pytest.raises(UsageError, match="chunk=8: the replay has 7 rows"):
        parts.check_chunk(TrainConfig(chunk=8, within_episodes=False), memory)
    parts.check_chunk(train, extend(memory, episode(6)))


def test_predictions_of_every_length_have_one_program(monkeypatch):
    """And are those of the episode alone: nothing before a row depends on the padding after it."""
    traced = []

    def counted(*arguments, **settings):
        traced.append(arguments)
        return open_loop_images(*arguments, **settings)

    monkeypatch.setattr(parts, "open_loop_images", counted)
    tiny = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=8, stochastic=4, deterministic=6, hidden=5)
    model, learner = rssm.make(rssm.RSSMConfig(reward_units=5, **tiny), SPEC)
    params = jax.jit(learner.init)(jax.random.key(0)).params
    predict = parts.make_predict(parts.Agent(model, learner, None), SPEC)
    steps = episode(parts.PREDICTED, 1)
    whole = predict(params, jax.random.key(1), steps)
    assert whole.shape == (parts.PREDICTED, *SPEC.obs_shape)
    for time in (1, parts.CONTEXT, 13):
        short = predict(params, jax.random.key(1), jax.tree.map(lambda x, time=time: x[:time], steps))
        np.testing.assert_array_equal(short, whole[:time])
    assert len(traced) == 1


def test_first_episode_ends_where_it_ends():
    two = jax.tree.map(lambda a, b: np.concatenate([a, b]), episode(4), episode(9, seed=1))
    found = parts.first_episode(two, 50)
    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(lambda x: x[:4, :1], two))
    assert parts.first_episode(two, 3).reward.shape == (3, 1)
    two.is_last[:] = False
    assert parts.first_episode(two, 50).reward.shape == (13, 1)


def test_a_run_keeps_its_short_episodes(tmp_path):
    """About a third of them have fewer rows than a chunk."""
    flags = ("--config=experiments/planet/config.py:fake:terminating,cpu", "--config.env.episode_steps=30")
    flags += ("--config.train.chunk=25", "--config.train.replay_rows=100", "--config.train.episodes=12")
    flags += ("--config.train.seed_episodes=4", "--config.evaluation.every=12", "--config.train.checkpoint_every=12")
    ended = mains.start(tmp_path / "run", *flags)
    assert ended.code == 0, ended.stderr
    lengths = [len(rows["reward"]) for rows in mains.state(tmp_path / "run")[1]]
    assert len(lengths) == 12 and min(lengths) < 25 <= max(lengths)
