"""The agents' main as a user runs it: training in both loops, resuming, refusals."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from experiments.i2a import agent, phases
from experiments.i2a.config import get_config
from tests import exporting, mains
from tests.mains import assert_as_whole, metrics, summary
from wmjax.types import UsageError

MAIN = "i2a"
GAME = dict(experiment=MAIN, tiny=mains.I2A_GAME)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return mains.whole_run(tmp_path_factory, MAIN)


def test_run_leaves_what_a_user_expects(whole):
    folder, _ = whole
    rows = metrics(folder)
    assert [row["updates"] for row in rows] == [2, 4, 6]
    told = {"train/policy_loss", "train/value_loss", "train/entropy", "train/rollout_entropy", "eval/return_mean"}
    assert told < set(rows[0]) and all(np.isfinite(list(row.values())).all() for row in rows)
    assert [row["env_steps"] for row in rows] == [21, 42, 63]  # 3 rows; each 8th arrival begins an episode
    assert rows[1]["episodes"] == 3 * 2 and 0 < rows[1]["collect/episode_length"] <= 7
    assert summary(folder)["finished"] and len(summary(folder)["evaluations"]) == 3
    page = (folder / "report.html").read_text()
    assert "Imagined rollouts" in page and (folder / "videos" / "rollouts_0000006.png").stat().st_size > 0


def test_every_program_of_a_run_lowers_for_accelerators(whole):
    found = mains.exports(whole)
    assert not any(found.values()), found
    files = (f"experiments/{MAIN}/{name}.py" for name in ("__main__", "predictions"))
    assert exporting.sites(*files) <= found.keys()


def test_killed_run_ends_bit_identical(whole, tmp_path):
    assert mains.start(tmp_path / "run", kill_at=whole[1] // 2, experiment=MAIN).code == -signal.SIGKILL
    resumed = mains.start(tmp_path / "run", experiment=MAIN)
    assert resumed.code == 0, resumed.stderr
    assert_as_whole(tmp_path / "run", whole)


def evaluate(folder, *flags):
    ended = mains.call("evaluate", f"--workdir={folder}", "--episodes=2", *flags)
    assert ended.code == 0, ended.stderr
    return json.loads((folder / "evaluate.json").read_text())


def test_the_agent_of_a_run_is_evaluated(whole):
    told = evaluate(whole[0])
    assert told["policy"] == dict(name="i2a", updates=6) and told["task"] == "minipacman:regular"
    returns = [told[f"eval/return_{i}"] for i in range(2)]
    assert told["eval/return_mean"] == np.mean(returns)
    assert told["eval/return_stderr"] == pytest.approx(np.std(returns, ddof=1) / np.sqrt(2))
    assert (whole[0] / "videos" / "evaluate.mp4").stat().st_size > 0


def test_its_way_to_food_is_told(whole):
    ended = mains.call("i2a.food", f"--workdir={whole[0]}", "--episodes=4", "--decisions=9")
    assert ended.code == 0, ended.stderr
    told = json.loads((whole[0] / "food.json").read_text())
    assert told["updates"] == 6 and sum(group["decisions"] for group in told["groups"]) <= 4 * 9
    assert len(ended.stdout.splitlines()) == 2 + len(told["groups"]) + 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--member=1"], "--member=1: the run has 1"),
        (["--task=hunt"], "--task=hunt: is for an agent of PlaNet"),
        (["--film=-1"], "--film=-1"),
    ],
)
def test_evaluations_are_refused_in_one_line(whole, flags, message):
    ended = mains.call("evaluate", f"--workdir={whole[0]}", *flags)
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_played(whole, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.delattr("experiments.players.restore")
    ended = mains.call("evaluate", f"--workdir={whole[0]}")
    assert ended.code == 2 and "cannot write into" in ended.stderr and ended.stderr.count("\n") == 1


def test_games_stepped_from_the_host_resume_where_they_were_stopped(tmp_path):
    exports = tmp_path / "exports"
    undisturbed = mains.start(tmp_path / "whole", **GAME, exports=exports)
    assert undisturbed.code == 0, undisturbed.stderr
    found = json.loads(exports.read_text())
    assert not any(found.values()) and exporting.sites("wmjax/run/unroll.py") <= found.keys(), found
    rows = metrics(tmp_path / "whole")
    assert [row["updates"] for row in rows] == [2, 4, 6] and rows[-1]["env_steps"] == 63 * 4
    stopped = mains.start(tmp_path / "run", **GAME, stop_at=("wmjax.envs.atari:AtariVecEnv.step", 14))
    assert stopped.code == 75 and 0 < summary(tmp_path / "run")["updates"] < 6
    assert mains.start(tmp_path / "run", **GAME).code == 0
    assert_as_whole(tmp_path / "run", (tmp_path / "whole",))
    told = evaluate(tmp_path / "run", "--film=0")
    assert told["task"] == "atari:Pong" and "normalised/Mnih 2015" in told
    ended = mains.call("i2a.food", f"--workdir={tmp_path / 'run'}")
    assert ended.code == 2 and "plays atari:Pong" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_run_stopped_in_its_last_evaluation_is_not_finished(tmp_path, whole):
    step = "wmjax.envs.jax_env:JaxVecEnv.step"  # of evaluations alone, seven calls each
    stopped = mains.start(tmp_path / "run", experiment=MAIN, stop_at=(step, 18))
    assert stopped.code == 75, stopped.stderr
    assert not summary(tmp_path / "run")["finished"]
    assert mains.start(tmp_path / "run", experiment=MAIN).code == 0
    assert_as_whole(tmp_path / "run", (whole[0],))


def learn(data, folder, kind, *flags):
    """A run of environment_models on recorded episodes of seven decisions."""
    words = (f"--config=experiments/environment_models/config.py:{data},{kind},cpu_grid", *flags)
    sizes = ("--config.model.reward_digits=4", "--config.train.updates=2", "--config.train.predicted=2")
    ended = mains.start(folder, *words, *sizes, experiment="environment_models")
    assert ended.code == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def data(whole, tmp_path_factory):
    """What the run above recorded."""
    folder = tmp_path_factory.mktemp("recorded") / "data"
    shards = ("--steps=100", "--envs=2", "--rows=31", f"--folder={folder}")
    ended = mains.call("record", "--game=minipacman:regular", f"--policy={whole[0]}", *shards)
    assert ended.code == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A run whose model jumps."""
    return learn(data, tmp_path_factory.mktemp("jumps") / "model", "dssm_det", "--config.model.jump=2")


def asking(kind, model):
    """The flags of an agent that asks a model."""
    return f"--config=experiments/i2a/config.py:minipacman:regular,{kind},cpu", f"--config.model_run={model}"


def test_an_agent_asks_a_model_that_was_trained_on_what_another_played(whole, data, model, tmp_path):
    """Recorded by the run above, learned by a model that jumps, queried; and what does not fit is refused."""
    assert json.loads((data / "config.json").read_text())["env"] == dict(maze="9x11", episode_steps=7)
    ended = mains.call("evaluate", f"--workdir={model}")
    assert ended.code == 2 and ended.stderr == f"error: {model} holds a run of an experiment that trains no agent\n"

    ltq = asking("ltq", model)
    ended = mains.start(tmp_path / "run", *ltq, "--config.train.updates=2", experiment=MAIN)
    assert ended.code == 0, ended.stderr
    row = metrics(tmp_path / "run")[-1]
    assert 0 < row["train/rollout_entropy"] < np.log(5) + 1e-5 and len(list((tmp_path / "run/videos").iterdir())) == 1
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(
        json.dumps(config | dict(world="0" * 16))
    )  # as if it was trained on since
    ended = mains.call("evaluate", f"--workdir={tmp_path / 'run'}")
    assert ended.code == 2 and "is not the one that it was trained with" in ended.stderr
    for flags, message in (
        (["--config.agent.horizon=4"], "8 decisions, an episode has 7"),
        (["--config.env.maze=15x19"], "a model of obs_shape (9, 11, 3)"),
        (["--config=experiments/i2a/config.py:minipacman:hunt,ltq,cpu"], "a model of minipacman:regular"),
        (["--config=experiments/i2a/config.py:minipacman:regular,modulation,cpu"], "sees_actions=False"),
        ([f"--config.model_run={whole[0]}"], "a run of another experiment"),
    ):
        words = [word for word in ltq if word.partition("=")[0] not in {flag.partition("=")[0] for flag in flags}]
        ended = mains.refused(tmp_path / "other", *words, *flags, experiment=MAIN)
        assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "untrained", "uniform", "distilled", "pixels", "modulation"])
def test_every_agent_trains_through_the_main(kind, data, model, tmp_path):
    """All ask one model, but for the modulation agent, whose model sees no actions; each shows what it imagined."""
    if kind == "modulation":
        model = learn(data, tmp_path / "blind", "sssm", "--config.model.sees_actions=False")
    ended = mains.start(tmp_path / "run", *asking(kind, model), "--config.train.updates=4", experiment=MAIN)
    assert ended.code == 0, ended.stderr
    rows = metrics(tmp_path / "run")
    assert rows[-1]["updates"] == 4 and np.isfinite(rows[-1]["eval/return_mean"])
    assert ("train/rollout_entropy" in rows[-1]) == (kind in ("distilled", "pixels"))
    assert len(list((tmp_path / "run/videos").glob("rollouts_*.png"))) == len(rows) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=experiments/i2a/config.py:minipacman:regular,a2c,cpu"], "agent one of model_free, copy"),
        (["--config=experiments/i2a/config.py:minipacman:hurry,uniform,cpu"], "unknown minipacman mode 'hurry'"),
        (["--config.model_run="], "give the folder of a run of environment_models, or simulator"),
        (["--config.model_run=nowhere"], "nowhere"),
        (["--config.agent.rollouts=4"], "there is one for each of the 5 actions"),
        (["--config.agent.horizon=8"], "8 decisions, an episode has 7"),
        (["--config.agent.rollout_policy=uniform"], "agent distilled is"),
        (["--config.agent.pixels=True"], "agent distilled is"),
        (["--config.agent.horizon=1"], "of a distilled rollout policy at least 2"),
        (["--config.agent.entropy=-1.0"], "agent entropy -1.0: must be 0 or more"),
        (["--config.agent.kernels=(3,)"], "equally many"),
        (["--config.agent.kernels=(8,4)"], "too large for images of 9 x 11"),
        (["--config.agent.jump_actions=none"], "choose one of repeat, independent"),
        (["--config.train.every=4"], "must divide config.train.updates=6"),
        (["--config=experiments/i2a/config.py:minipacman:regular,ltq,cpu"], "not for agent ltq"),
        (["--config.env.maze=3x3"], "maze"),
    ],
)
def test_refusals_are_one_line(flags, message, tmp_path):
    ended = mains.refused(tmp_path / "run", *flags, experiment=MAIN)
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_environment_that_shows_its_state_is_a_model_of_itself():
    """Whoever made it; no other is asked for an option that it does not have."""
    config = get_config("py:tests.jax_walk:make_discrete,uniform,cpu")
    config.model_run, config.agent.rollouts = "simulator", 3
    settings = agent.read_settings(config)
    world = agent.make_world(settings, *agent.spec_of(settings), jax.random.key(0))
    assert world.query.model.feature_shape == (16, 16, 1)
    settings = settings._replace(task="ball:drifting", agent=dataclasses.replace(settings.agent, rollouts=1))
    with pytest.raises(UsageError, match="the environment must show its state"):
        agent.make_world(settings, *agent.spec_of(settings), jax.random.key(0))


def test_a_tally_counts_decisions_and_returns_of_whole_episodes():
    reward = np.array([[1, 5], [2, 0], [4, 1], [0, 2]], np.float32)
    is_last = np.array([[0, 1], [1, 0], [0, 0], [1, 1]], bool)
    played, began = phases.Played(reward, is_last), np.array([False, False])
    tally, returns, lengths, begins = phases.EpisodeTotals.of(2).after(phases.Played(reward[:3], is_last[:3]), began)
    assert (returns, lengths) == ([5.0, 3.0], [1, 2]) and np.array_equal(begins, [False, False])
    _, more, longer, begins = tally.after(phases.Played(reward[3:], is_last[3:]), begins)
    assert (more, longer) == ([4.0, 3.0], [1, 2]) and begins.all()
    assert phases.decisions(played, began) == 6
