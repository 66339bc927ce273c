"""One agent for several tasks: an episode of each in turn, padded actions, resuming, refusals."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments.planet import agent as agents
from experiments.planet.config import get_config
from tests import mains
from tests.fakes import DISCRETE_SPEC, SPEC, randomised
from tests.mains import assert_as_whole, metrics
from wmjax.agents.random import make_random_actor
from wmjax.envs import fake
from wmjax.models import rssm
from wmjax.models.rssm.learner import model_loss
from wmjax.report import plots
from wmjax.report.metrics import of_task, over_tasks, tasks_of
from wmjax.report.page import write_report
from wmjax.run import devices, pools, replays
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import Member, by_task
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import UsageError

SEVERAL = (
    "--config.train.tasks=('fake:terminating',)",
    "--config.train.seed_episodes=1",
    "--config.train.episodes=6",
    "--config.evaluation.every=4",
)
TINY = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=8, stochastic=4, deterministic=6, hidden=5)


def start(folder, *flags, **how):
    return mains.start(folder, *SEVERAL, *flags, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "run"
    ended = start(folder)
    assert ended.code == 0, ended.stderr
    return (folder,)


def test_every_pass_plays_an_episode_of_each_task(whole):
    folder, rows = whole[0], metrics(whole[0])
    assert [row["episodes"] for row in rows] == [2, 4, 6]
    assert [row["updates"] for row in rows] == [0, 4, 8]  # 2 for each episode
    plays = mains.state(folder)[1]
    assert len(plays) == 6 and rows[-1]["env_steps"] == sum(len(play["reward"]) - 1 for play in plays)
    for row, counter, terminating in zip(rows, plays[::2], plays[1::2], strict=True):
        assert counter["discount"].all()
        returns = [row["collect/counter/return"], row["collect/terminating/return"]]
        np.testing.assert_allclose(returns, [counter["reward"].sum(), terminating["reward"].sum()], rtol=1e-5)
        assert row["collect/return"] == np.mean(returns)
    assert ["eval/return_mean" in row for row in rows] == [False, True, True]
    for task in ("counter", "terminating"):
        assert (folder / "videos" / f"episode_000006_{task}.mp4").stat().st_size > 0
        assert (folder / "videos" / f"open_loop_episode_000006_{task}.png").stat().st_size > 0


def test_the_report_has_curves_and_pictures_of_each_task(whole, monkeypatch):
    monkeypatch.setattr(plots, "_svg", lambda figure: f"<svg>{figure.axes[0].get_title()}</svg>")
    page = write_report(whole[0]).read_text()
    assert "<h1>fake:counter, fake:terminating</h1>" in page and page.count("<svg>mean of 2 tasks</svg>") == 2
    for task in ("counter", "terminating"):
        assert f"<svg>{task}</svg>" in page and f"Open-loop prediction, {task}<" in page


def test_killed_between_the_rows_of_two_tasks_it_ends_as_if_never_killed(whole, tmp_path):
    folder, moves = tmp_path / "run", 9  # files; the ninth is that of the second pass's second rows
    assert start(folder, kill_at=moves).code == -signal.SIGKILL
    assert len(metrics(folder)) == 1 and len(list((folder / "replay").glob("0*.npz"))) == 3
    ended = start(folder)
    assert ended.code == 0, ended.stderr
    assert_as_whole(folder, whole)


@pytest.mark.slow
def test_stopped_in_the_episode_of_a_second_task_it_repeats_the_pass(whole, tmp_path):
    folder, step = tmp_path / "run", "wmjax.envs.fake:FakeVecEnv.step"
    stopped = start(folder, stop_at=(step, 2 * 12 + 12 + 3))
    assert stopped.code == 75 and metrics(folder) == metrics(whole[0])[:1], stopped.stderr
    ended = start(folder)
    assert ended.code == 0, ended.stderr
    assert_as_whole(folder, whole)


def test_evaluate_plays_the_task_that_it_is_told(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    ended = mains.call("evaluate", f"--workdir={folder}", "--episodes=2", "--task=terminating")
    assert ended.code == 0, ended.stderr
    assert json.loads((folder / "evaluate_terminating.json").read_text())["task"] == "fake:terminating"
    assert (folder / "videos" / "evaluate_terminating.mp4").stat().st_size > 0
    ended = mains.call("evaluate", f"--workdir={folder}", "--task=walker")
    assert ended.code == 2 and "--task 'walker'" in ended.stderr and "counter, terminating" in ended.stderr


@pytest.fixture
def unequal(monkeypatch):
    """fake:terminating takes one action and has shorter episodes, fake:counter takes two."""
    make = fake.make

    def shorter(task, seeds, options):
        return make(task, seeds, options | (dict(action_size=1, episode_steps=8) if task == "terminating" else {}))

    monkeypatch.setattr(fake, "make", shorter)


def test_padded_actions_are_in_the_replay_as_they_were_asked_for(unequal):
    """Of the task that does not take them too, and so its model can learn that they do nothing; zeros at the start."""
    players = by_task((Member("fake:terminating", 0), Member("fake:terminating", 1)), ("fake:counter",))
    options = dict(size=16)
    firsts = {task: pools.first_step(own, 1, options) for task, own in players.items()}
    spec, example = firsts[pools.widest({task: own for task, (own, _) in firsts.items()})]
    assert spec.action.size == 2 and list(players) == ["terminating", "counter"]
    memory = replays.make_memory(25, 1, example, 2, devices.make_mesh("1"))
    player = make_player(make_random_actor(spec.action), 1, explore=True)
    keys = jax.random.split(jax.random.key(0))
    played = {}
    for task, env in pools.envs_of(players, 1, options, spec.action.size).items():
        played[task], _ = play_episodes(env, player, np.zeros(2), keys, Stopwatch())
        memory = replays.make_extend(memory)(memory, played[task])
    assert len(played["counter"].reward) == 13 and 1 < len(played["terminating"].reward) <= 9
    short, actions = len(played["terminating"].reward), np.asarray(memory.rows.prev_action)
    assert not actions[:, 0, 0].any() and actions[:, 0, 1:short].all()
    assert actions[:, 0, short + 1 : short + 13].all()

    config = rssm.RSSMConfig(reward_units=5, **TINY)
    model, learner = rssm.make(config, spec)
    params = randomised(jax.eval_shape(learner.init, jax.random.key(1)).params)

    @jax.jit
    def gradient(batch):
        loss = jax.grad(model_loss, argnums=3, has_aux=True)
        return loss(model, config, spec.action, params, jax.random.key(2), batch)[0]["input"]["params"]["kernel"]

    grads = {}
    for task, steps in played.items():
        batch = jax.tree.map(lambda x: np.swapaxes(x[:4], 0, 1), steps)
        grads[task] = np.asarray(gradient(batch))[config.stochastic :]  # of the actions
    assert grads["terminating"][0].any() and grads["terminating"][1].any()
    assert grads["counter"][0].any() and grads["counter"][1].any()


def test_metrics_of_tasks_are_written_and_read_by_one_convention():
    found = dict(a=[{"eval/return_mean": 1.0}, {"eval/return_mean": 5.0}])
    assert over_tasks(found) == found["a"]
    found["b_c"] = [{"eval/return_mean": 3.0}, {"eval/return_mean": 6.0}]
    rows = over_tasks(found)
    assert rows[0] == {"eval/return_mean": 2.0, "eval/a/return_mean": 1.0, "eval/b_c/return_mean": 3.0}
    assert rows[1]["eval/return_mean"] == 5.5
    assert tasks_of([{"train/loss": 1.0}, *rows]) == ["a", "b_c"] and tasks_of([{"eval/return_mean": 1.0}]) == []
    assert [row["eval/return_mean"] for row in of_task(rows, "b_c")] == [3.0, 6.0]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--config.train.tasks=('fake:counter',)"], ["config.train.tasks", "one task twice"]),
        (["--config.train.tasks=('fake:countr',)"], ["countr", "counter, terminating"]),
        (["--config.train.tasks=(3,)"], ["config.train.tasks=3", "str"]),
        (["--config.train.tasks=('ball:drifting',)"], ["drifting and counter are no tasks for one agent: obs"]),
        (
            ["--config.train.tasks=('fake:terminating',)", "--config.train.episodes=4"],
            ["seed_episodes=2 for each of 2"],
        ),
        (
            ["--config.train.tasks=('fake:terminating',)", "--config.train.replay_rows=25"],
            ["26", "episode of each task"],
        ),
        (
            [
                "--config=experiments/planet/config.py:fake:counter+fake:terminating,cpu",
                "--config.train.tasks=('ball:drifting',)",
            ],
            ["config.train.tasks=('ball:drifting',): only where config.task names one task, not 2"],
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(flags, named, tmp_path):
    ended = mains.refused(tmp_path / "run", *flags)
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert all(word in ended.stderr for word in named), ended.stderr


def test_tasks_that_differ_in_more_than_the_length_of_actions_are_refused():
    longer = SPEC._replace(action=SPEC.action._replace(size=6), action_repeat=4, time_limit=9)
    assert pools.widest(dict(a=SPEC, b=longer)) == "b" and pools.widest(dict(a=SPEC, b=SPEC)) == "a"
    for other in (
        longer._replace(obs=jax.ShapeDtypeStruct((32, 32, 3), np.uint8)),
        longer._replace(action=longer.action._replace(high=2.0)),
        DISCRETE_SPEC,
    ):
        with pytest.raises(UsageError, match="a and b|b and a"):
            pools.widest(dict(a=SPEC, b=other))


def test_names_without_a_family_are_tasks_of_the_control_suite():
    config = get_config("cheetah_run,cpu")
    config.train.tasks = ("reacher_easy", "fake:counter")
    config.population = 2
    tasks = agents.read_settings(config).tasks
    assert {name: [tuple(each) for each in own] for name, own in tasks.items()} == dict(
        cheetah_run=[("dmc:cheetah_run", 0), ("dmc:cheetah_run", 1)],
        reacher_easy=[("dmc:reacher_easy", 0), ("dmc:reacher_easy", 1)],
        counter=[("fake:counter", 0), ("fake:counter", 1)],
    )


@pytest.mark.slow
def test_every_member_of_a_population_plays_every_task(whole, tmp_path):
    folder = tmp_path / "run"
    ended = start(folder, "--config.population=2")
    assert ended.code == 0, ended.stderr
    ours, others = metrics(folder / "seed_4"), metrics(folder / "seed_5")
    assert ours[0] == metrics(whole[0])[0]  # later ones differ in their last bits
    assert ours[-1].keys() == others[-1].keys() == metrics(whole[0])[-1].keys()
    assert ours[-1]["collect/terminating/return"] != others[-1]["collect/terminating/return"]
