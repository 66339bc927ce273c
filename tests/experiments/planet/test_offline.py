"""Training on recorded episodes: it resumes bit for bit, tells pools apart, compares predictions with their rewards."""

import functools
import itertools
import json
import shutil
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from experiments.planet import offline, pool, predictions, windows
from experiments.planet.agent import Agent
from tests import mains
from tests.fakes import SPEC, random_steps
from tests.mains import metrics, summary
from wmjax import envs
from wmjax.agents.random import make_random_actor
from wmjax.report.progress import Progress
from wmjax.run import lifecycle, pools
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import Member
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import checkpoint
from wmjax.types import WorldModel

HORIZON, ROWS = 3, 13  # of mains.PLANET's planner and in its episodes
BELOW = -0.1  # many rewards are
WORDS = (*mains.PLANET, "--updates=4", "--every=2")


@functools.cache
def random_play(seed, **options):
    """Step [ROWS, 2] of fake:counter under random actions."""
    env = pools.join_envs([Member("fake:counter", seed)], 2, dict(size=16) | options)
    player = make_player(make_random_actor(env.spec.action), 2, explore=True)
    return play_episodes(env, player, np.zeros(1), jax.random.key(seed)[None], Stopwatch())[0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Folders of two runs: collected episodes in both, those of an evaluation kept in the first."""
    first, second = (tmp_path_factory.mktemp("recorded") / name for name in "ab")
    for seed, (folder, index, rows) in enumerate(
        [(first, 0, "replay"), (first, 1, "replay"), (second, 0, "replay"), (first, 0, "evaluation")]
    ):
        checkpoint.append_rows(folder, index, random_play(seed), rows)
    return first, second


def words(recorded, folder):
    first, second = recorded
    return [*WORDS, f"--train={first},{second}", f"--test={first}", f"--workdir={folder}"]


def start(recorded, folder, **how):
    return mains.fork("planet.offline", ["offline", *words(recorded, folder), f"--below={BELOW}"], **how)


@pytest.fixture(scope="module")
def whole(recorded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    ended = start(recorded, folder)
    assert ended.code == 0, ended.stderr
    return folder, int(ended.stdout.rpartition("moves: ")[2]), ended.stdout


def test_a_run_leaves_what_a_study_reads(recorded, whole):
    folder, _, said = whole
    rows, told = metrics(folder), summary(folder)
    assert [row["updates"] for row in rows] == [2, 4] and told["updates"] == 4 and told["finished"]
    assert ["eval/return_mean" in row for row in rows] == [False, True]
    names = ["reward_error_median", "reward_error_mean", "r2_horizon", "r2_posterior"]
    assert all(np.isfinite(row[f"{name}/{metric}"]) for row in rows for name in ("train", "eval") for metric in names)
    assert {"train/loss", "train/kl", "eval/optimism"} <= rows[0].keys() and "train/optimism" not in rows[0]
    returns = [rows[1]["eval/return_0"], rows[1]["eval/return_1"]]
    low, high = sorted(returns)
    assert told["score"]["percentile_90"] == pytest.approx(low + 0.9 * (high - low)) and told["score"]["episodes"] == 2
    assert told["score"]["mean"] == pytest.approx(np.mean(returns))
    assert told["newest"] == {name: x for name, x in rows[1].items() if name != "updates"}
    assert {name: (own["episodes"], own["rows"]) for name, own in told["pools"].items()} == dict(
        train=(6, 6 * ROWS), eval=(2, 2 * ROWS)
    )
    assert all(f"sha256 {own['digest']}" in said for own in told["pools"].values())
    plays = [steps for place in recorded for steps in checkpoint.load_rows(place, checkpoint.count_rows(place))]
    pieces = [each for steps in plays for own in pool.split(steps) for each in pool.pieces_below(own, BELOW, 6)]
    learned = sum(len(each.reward) - HORIZON for each in pieces)
    with np.load(folder / offline.PREDICTIONS) as arrays:
        assert arrays["edges"].shape == (windows.BINS + 1,)
        assert arrays["train"].sum() == learned * HORIZON < 6 * (ROWS - HORIZON) * HORIZON
        assert arrays["eval"].sum() == 2 * (ROWS - HORIZON) * HORIZON
    assert (folder / "videos" / "open_loop_update_0000004.png").stat().st_size > 0
    page = (folder / "report.html").read_text()
    assert "run · finished" in page and "In evaluation episodes" in page


def test_killed_and_stopped_it_ends_bit_identical(recorded, whole, tmp_path):
    """Killed in the middle; told to end while it plays; measured anew then, and played from the beginning."""
    folder, step = tmp_path / "run", "wmjax.envs.fake:FakeVecEnv.step"
    assert start(recorded, folder, kill_at=whole[1] // 2).code == -signal.SIGKILL
    stopped = start(recorded, folder, stop_at=(step, 5))
    assert stopped.code == 75 and "resumed after update" in stopped.stdout, stopped.stderr
    assert summary(folder)["score"]["percentile_90"] is None and len(metrics(folder)) == 1
    ended = start(recorded, folder)
    assert ended.code == 0, ended.stderr
    mains.assert_as_whole(folder, whole)
    assert (folder / offline.PREDICTIONS).read_bytes() == (whole[0] / offline.PREDICTIONS).read_bytes()
    assert summary(folder) | dict(minutes=0) == summary(whole[0]) | dict(minutes=0)


@pytest.mark.parametrize(("over_at", "updates"), [(2, [1]), (4, [2, 2]), (9, [2, 4])])
def test_a_run_whose_minutes_are_over_plays_once_and_what_it_played_is_cut_off_again(
    over_at, updates, tmp_path, monkeypatch
):
    def go(planned):
        run = lifecycle.open_run(
            tmp_path,
            dict(task="x", offline=dict(updates=planned)),
            [Member("x", 0)],
            may_differ=offline.MAY_DIFFER,
            unit="update",
            planned=planned,
            minutes=1.0,
            keep=2,
        )
        begun = dict(counters=dict(updates=0, measured=0), losses={})
        state = run.restore(begun | dict(losses=checkpoint.AS_SAVED)) or begun
        train = lambda state: state | dict(counters=state["counters"] | dict(updates=state["counters"]["updates"] + 1))
        look = lambda state, last: dict(played=int(last))
        state = offline.train_and_look(run, state, train, look, SimpleNamespace(every=2, updates=planned))
        run.finish(state["counters"]["measured"], {})
        return [(row["updates"], row["played"]) for row in metrics(tmp_path)]

    with monkeypatch.context() as patched:
        asked = itertools.count(1)
        patched.setattr(Progress, "out_of_time", lambda *_: next(asked) >= over_at)
        assert go(4) == list(zip(updates, [0] * (len(updates) - 1) + [1], strict=True))
    assert go(4) == [(2, 0), (4, 1)] and summary(tmp_path)["finished"]
    assert go(6) == [(2, 0), (4, 1), (6, 1)]


def test_its_agent_can_be_evaluated_and_other_episodes_are_refused(recorded, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    ended = mains.call("evaluate", f"--workdir={folder}", "--episodes=2", "--film=0")
    assert ended.code == 0, ended.stderr
    told = json.loads((folder / "evaluate.json").read_text())
    assert (
        told["policy"] == dict(name="planet", episodes=0, updates=4) and not (folder / "videos/evaluate.mp4").exists()
    )
    ended = mains.call("planet.offline", *words(recorded, folder), f"--train={recorded[1]}")
    assert ended.code == 2 and "offline.train" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--test={second}"], ["--train and --test have 2 episodes in common", "{second}/replay/000000.npz"]),
        (["--test={copy}"], ["in common", "{first}/replay/000001.npz and {copy}/evaluation/000000.npz"]),
        (["--test={empty}"], ["{empty} has no episodes in evaluation or replay/"]),
        (["--updates=5"], ["--updates=5", "multiple of --every=2"]),
        (["--distributed=h:1/2/0"], ["--distributed=h:1/2/0", "one process"]),
        (["--below=nan"], ["--below=nan", "finite"]),
        (["--below=-9"], ["--below=-9.0", "no 6 rows of --train"]),
        (["--above=9"], ["config.planner.horizon=3", "--train", "above 9.0"]),
        (["--config.planner.horizon=13"], ["config.planner.horizon=13", "--train"]),
        (["--config.train.chunk=14"], ["config.train.chunk=14", "13 rows"]),
        (["--config.population=2"], ["config.population", "one seed"]),
        (["--train={large}"], ["{large} has images (32, 32, 3), the config (16, 16, 3)"]),
        (["--config=experiments/planet/config.py:fake:counter,gpu"], ["paper, cpu"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(recorded, flags, said, tmp_path):
    places = dict(first=recorded[0], second=recorded[1]) | {
        name: tmp_path / name for name in ("copy", "large", "empty")
    }
    checkpoint.append_rows(places["copy"], 0, random_play(1), checkpoint.EVALUATION)
    checkpoint.append_rows(places["large"], 0, random_play(1, size=32))
    given = words(recorded, tmp_path / "run") + [flag.format(**places) for flag in flags]
    ended = mains.call("planet.offline", *given)
    assert ended.code == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert all(each.format(**places) in ended.stderr for each in said), ended.stderr
    assert not (tmp_path / "run").exists()


def test_equal_pools_have_equal_digests_and_equal_episodes_are_there_once(recorded):
    spec = envs.make("fake:counter", 1, 0, size=16).spec
    once, twice = (pool.read([recorded[1]] * count, pool.TRAIN, spec) for count in (1, 2))
    assert len(once) == 2 and pool.digest(once) == pool.digest(twice)
    assert pool.digest(pool.read(recorded[:1], pool.TRAIN, spec)) != pool.digest(once)
    assert pool.digest(dict(reversed(once.items()))) != pool.digest(once)
    ((_, kept), *_) = pool.read(recorded[:1], pool.TEST, spec).items()
    assert kept.file == f"{recorded[0]}/evaluation/000000.npz"


def test_rows_are_split_where_episodes_begin():
    steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, 2, 9))  # [T, E]
    steps.is_first[4, 1] = True
    found = pool.split(steps)
    assert [len(each.reward) for each in found] == [9, 4, 5]
    np.testing.assert_array_equal(found[2].reward[:, 0], steps.reward[4:, 1])
    assert all(each.is_first[0, 0] and not each.is_first[1:].any() for each in found)


def test_pieces_below_a_limit_hold_nothing_else():
    steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, 1, 12))
    steps.reward[:, 0] = [0, 1, 0, 0, 5, 0, 2, 0, 0, 0, 0, 1]
    pieces = pool.pieces_below(steps, 2.0, 4)
    assert [each.reward[:, 0].tolist() for each in pieces] == [[0, 1, 0, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(pieces[1].obs[:, 0], steps.obs[7:, 0])
    assert [each.is_first[:, 0].tolist() for each in pieces] == [[True, *[False] * (n - 1)] for n in (4, 5)]
    assert pool.pieces_below(steps, -1.0, 1) == []


@struct.dataclass
class Counter:
    place: jax.Array  # float32 [B, A]
    last: jax.Array  # float32 [B, A], the action that led here


def make_counter(late=False, whole=False, decode=None):
    """fake:counter itself as a model. late: every action moves it a step later; whole: it tells `rewards` alone."""

    def initial(params, batch):
        return Counter(jnp.zeros((batch, 2)), jnp.zeros((batch, 2)))

    def observe(params, key, state, prev_action, embed, is_first):
        return Counter(embed, prev_action), None

    def imagine(params, key, state, action):
        used = state.last if late else action
        return Counter(jnp.clip(state.place + jnp.clip(used, -1, 1), -4, 4), action)

    def reward(params, state):
        return 1 - jnp.abs(state.place).mean(-1)

    def rewards(params, key, state, actions):
        told = []
        for action in actions:
            state = imagine(params, key, state, action)
            told.append(reward(params, state))
        return jnp.stack(told)

    encode = lambda params, obs: obs["state"]
    features = lambda params, state: state.place
    discount = lambda params, state: jnp.ones(len(state.place))
    single = (lambda params, state: jnp.full(len(state.place), jnp.nan)) if whole else reward
    return WorldModel(
        initial, encode, observe, imagine, features, single, discount, decode, (2,), rewards if whole else None
    )


def asked(model, above=None):
    """Windows of fake:counter's random play, episodes of two lengths."""
    episodes = pool.split(random_play(0, observe="image+state"))
    episodes += pool.split(random_play(1, observe="image+state", episode_steps=8))
    predict = windows.make_predict(model, SPEC.action, HORIZON, 15)
    return windows.measure(predict, None, jax.random.key(0), episodes, above)


@pytest.mark.parametrize("whole", [False, True])
def test_a_model_that_knows_the_truth_has_no_error_and_a_late_one_has(whole):
    """Window t begins at the state t and has the actions and rewards of t + 1 to t + H."""
    known, late = (asked(make_counter(late, whole)) for late in (False, True))
    assert known.true.shape == known.predicted.shape == (2 * (13 - 3) + 2 * (9 - 3), HORIZON)
    found, wrong = windows.metrics(known), windows.metrics(late)
    assert found["reward_error_median"] < 1e-12 and found["reward_error_mean"] < 1e-12
    assert found["r2_horizon"] == pytest.approx(1)
    assert wrong["reward_error_median"] > 1e-2 and wrong["r2_horizon"] < 0.99
    assert ("r2_posterior" in found) == (not whole) and found.get("r2_posterior", 1) == pytest.approx(1)


@pytest.mark.parametrize("family", ["rssm", "video", "reward_only"])
def test_the_reward_of_a_seen_state_is_measured_of_an_rssm_alone(family, tmp_path):
    """ot_lr's was predicted before the image was seen, and r's is that of no action."""
    episodes = pool.split(random_play(0, observe="image+state"))
    data = offline.Data({}, [], dict(train=episodes, eval=episodes))
    settings = SimpleNamespace(family=family, planner=SimpleNamespace(horizon=HORIZON))
    options = SimpleNamespace(above=None, below=None, workdir=tmp_path)
    measure = offline.make_measure(make_counter(), settings, SPEC, data, options, jax.random.key(0))
    found = measure(None)
    assert "eval/r2_horizon" in found and ("eval/r2_posterior" in found) == (family == "rssm")


def test_windows_are_summed_up_as_they_are_defined():
    true = np.float32([[0, 0], [1, 1], [2, 4]])
    found = windows.metrics(windows.Windows(true, true + np.float32([[1, -1], [3, 0], [0, 0]]), None), 1.0)
    assert found["reward_error_median"] == 1.0 and found["reward_error_mean"] == pytest.approx(5.5 / 3)
    assert found["optimism"] == 0.75 and found["r2_horizon"] == pytest.approx(1 - 9 / 3 / np.var([0, 2, 6]))
    flat = windows.Windows(0 * true, true, None)
    assert np.isnan(windows.metrics(flat, 9.0)["optimism"]) and np.isnan(windows.metrics(flat)["r2_horizon"])


def test_only_states_after_high_rewards_are_counted():
    rewards = np.float32([4, 0, 0, 0, 0, 8, 8])
    np.testing.assert_allclose(windows.recent(rewards), [4, 2, 4 / 3, 1, 0, 2, 4])
    steps = SimpleNamespace(reward=rewards[:, None])
    assert windows.counted(steps, 2, above=1.5).tolist() == [True, True, False, False, False]
    assert windows.counted(steps, 6).tolist() == [True] and not len(windows.counted(steps, 7, above=0.0))
    every, some = asked(make_counter()), asked(make_counter(), above=0.0)
    assert 0 < len(some.true) < len(every.true) == len(every.seen)
    assert {*some.seen.tolist()} < {*every.seen.tolist()}


def test_histograms_count_true_against_predicted():
    true = np.float32([[0.0, 1.0]])
    sets = dict(train=windows.Windows(true, np.float32([[-9.0, 9.0]]), None))
    sets["eval"] = windows.Windows(true, np.float32([[1.0, 0.5]]), None)
    found = windows.histograms(sets)
    np.testing.assert_allclose(found["edges"], np.linspace(0, 1, windows.BINS + 1))
    assert found["train"][0, 0] == found["train"][-1, -1] == 1 and found["train"].sum() == 2
    assert found["eval"][0, -1] == found["eval"][-1, windows.BINS // 2] == 1


def test_the_score_is_numpys_90th_percentile():
    returns = np.random.default_rng(0).normal(size=23)
    rank = 0.9 * (len(returns) - 1)
    low, high = np.sort(returns)[int(rank)], np.sort(returns)[int(rank) + 1]
    assert offline.score(returns) == pytest.approx(low + (rank - int(rank)) * (high - low))


def test_a_model_without_pixels_is_evaluated_without_a_picture(tmp_path):
    env = pools.join_envs([Member("fake:counter", 0)], 2, dict(size=16, episode_steps=3))
    actor = make_random_actor(env.spec.action)
    predict = predictions.make_predict(Agent(make_counter(), None, actor), env.spec)
    assert predict is None
    player = make_player(actor, 2, explore=True)
    (row,), steps = predictions.evaluate([tmp_path], "x", env, player, predict, np.zeros(1), jax.random.key(0)[None])
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["x.mp4"]
    assert steps.reward.sum(axis=0).tolist() == pytest.approx([row["eval/return_0"], row["eval/return_1"]])
