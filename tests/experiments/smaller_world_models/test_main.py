"""The main of Smaller World Models on a tiny schedule: it trains, resumes bit for bit, and refuses in one line."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import config, phases, predictions
from tests import exporting, mains
from tests.mains import assert_as_whole, metrics, summary
from wmjax import replay, train
from wmjax.nets.policy import VectorPolicy
from wmjax.ops import frames
from wmjax.run.members import Member
from wmjax.types import ActionSpec, EnvSpec, Step, WorldModel

MAIN = "smaller_world_models"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return mains.whole_run(tmp_path_factory, MAIN)


def test_run_leaves_what_a_user_expects(whole):
    folder, _ = whole
    rows = metrics(folder)
    evaluated = [row for row in rows if "eval/return_mean" in row]
    assert [row["iterations"] for row in evaluated] == [1, 2, 3]
    assert len(rows) == 3 + phases.BINS * (1 + 3 * 2)  # the warm-up once, fit and dream in each iteration
    curves = [row for row in rows if "iterations" not in row]
    assert (np.diff([row["updates"] for row in curves]) > 0).all()
    steps = evaluated[-1]["env_steps"]  # 120 decisions of four frames, but for the rows that begin an episode
    assert steps == 4 * (120 - 4) and evaluated[-1]["episodes"] == 4
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    wanted = "elbo commitment perplexity latent_loss latent_accuracy reward_loss reward_count_zero reward_correct_zero"
    for name in (*wanted.split(), "policy_loss", "value_loss", "entropy", "return_mean"):
        assert f"train/{name}" in evaluated[-1], name
    for name in (
        "one_step/accuracy",
        "one_step/copy_last_frame",
        "one_step/majority_baseline",
        "open_loop/accuracy",
        "open_loop/copy_last_frame",
    ):
        assert 0 <= evaluated[-1][f"eval/{name}"] <= 1, name
    told = summary(folder)
    assert told["finished"] and len(told["evaluations"]) == 3
    for name in ("iteration_003.mp4", "open_loop_iteration_003.png", "codes_iteration_003.png"):
        assert (folder / "videos" / name).stat().st_size > 0
    page = (folder / "report.html").read_text()
    curves = (
        "train/latent_accuracy",
        "train/reward_correct_zero",
        "train/value_loss",
        "eval/open_loop/copy_last_frame",
    )
    for shown in ("Codes", "paper, 4 frames", *curves):
        assert shown in page, shown
    with np.load(folder / "replay" / "000000.npz") as first:
        assert first["obs"].shape == (61, 1, 8, 8, 1)  # single frames, though the networks see two


def test_every_program_of_a_run_lowers_for_accelerators(whole):
    found = mains.exports(whole)
    assert not any(found.values()), found
    files = (f"experiments/{MAIN}/{name}.py" for name in ("__main__", "phases", "predictions"))
    unused = exporting.sites("wmjax/run/unroll.py")
    assert exporting.sites(*files, "wmjax/run/*.py") - unused <= found.keys()


def test_a_run_stopped_and_killed_ends_bit_identical(whole, tmp_path):
    """Told to end inside a point of the dreams' curve; killed with the third iteration's rows in no checkpoint.

    Killed before every move: tests/run/test_lifecycle.py.
    """
    folder = tmp_path / "run"
    stopped = mains.start(folder, experiment=MAIN, stop_at=("experiments.smaller_world_models.phases:Curve.part", 47))
    assert stopped.code == 75 and stopped.stderr.endswith("stopped by SIGTERM: the same command goes on\n")
    told = summary(folder)
    assert told["iterations"] == 0 and not told["finished"] and told["planned"] == dict(iterations=3)
    assert metrics(folder) == metrics(whole[0])[: 20 + 20 + 3]  # the fourth point has one of its two rounds
    killed = mains.start(folder, experiment=MAIN, kill_at="000000000002/manifest.json")
    assert killed.code == -signal.SIGKILL and len(list((folder / "replay").glob("0*.npz"))) == 3
    resumed = mains.start(folder, experiment=MAIN)
    assert resumed.code == 0 and "resumed after iteration 1\n" in resumed.stdout, resumed.stderr
    assert_as_whole(folder, whole)


@pytest.mark.slow
def test_a_run_timed_and_stopped_ends_bit_identical(whole, tmp_path):
    """Ended by the clock inside the dreams' curve, then told to end while it plays."""
    folder = tmp_path / "run"
    timed = mains.start(folder, experiment=MAIN, over_at=51)
    assert timed.code == 0, timed.stderr
    assert metrics(folder)[:-1] == metrics(whole[0])[: 20 + 20 + 4]
    assert len(summary(folder)["evaluations"]) == 1 and not summary(folder)["finished"]
    for name in ("iteration_001.mp4", "open_loop_iteration_001.png", "codes_iteration_001.png"):
        assert (folder / "videos" / name).stat().st_size > 0
    stopped = mains.start(folder, experiment=MAIN, stop_at=("wmjax.envs.atari:AtariVecEnv.step", 30))
    assert stopped.code == 75 and summary(folder)["iterations"] == 1  # in its evaluation or the second collection
    resumed = mains.start(folder, experiment=MAIN)
    assert resumed.code == 0, resumed.stderr
    assert_as_whole(folder, whole)


def assert_close(rows, others):
    for row, other in zip(rows, others, strict=True):
        for name in row:
            if not name.startswith("eval/") and "correct" not in name:  # a draw may fall out otherwise after rounding
                np.testing.assert_allclose(other[name], row[name], rtol=2e-2, atol=2e-2, err_msg=name)


@pytest.mark.slow
def test_a_member_of_a_population_is_the_run_of_its_seed(whole, tmp_path):
    folder = tmp_path / "run"
    ended = mains.start(folder, "--config.population=2", experiment=MAIN, drawn=True)
    assert ended.code == 0, ended.stderr
    alone, both = metrics(whole[0]), [metrics(folder / f"seed_{seed}") for seed in (0, 1)]
    assert_close(alone, both[0])
    assert both[0][-1]["train/elbo"] != both[1][-1]["train/elbo"]
    assert "seed_1/report.html" in (folder / "report.html").read_text()


def test_several_games_in_one_program(whole, tmp_path):
    folder = tmp_path / "run"
    games = "--config=experiments/smaller_world_models/config.py:Pong+SpaceInvaders,cpu"
    ended = mains.start(folder, games, "--config.train.iterations=1", experiment=MAIN, drawn=True)
    assert ended.code == 0, ended.stderr
    pong, invaders = (folder / f"{game}_seed_0" for game in ("Pong", "SpaceInvaders"))
    rows = metrics(pong)
    assert rows[-1]["iterations"] == 1
    assert_close(metrics(whole[0])[: len(rows)], rows)
    assert json.loads((invaders / "config.json").read_text())["task"] == "atari:SpaceInvaders"
    page = (folder / "report.html").read_text()
    assert "SpaceInvaders_seed_0/report.html" in page and "Scores" in page and page.count("mean of 1") == 2
    evaluate(folder, "--member=1", "--episodes=2")
    result = json.loads((folder / "evaluate.json").read_text())
    assert result["task"] == "atari:SpaceInvaders" and result["member"] == 1
    assert "the run has 2" in evaluate(folder, "--member=2").stderr
    listed = mains.call("smaller_world_models.table", f"--runs={folder}")
    assert "| Pong " in listed.stdout and "| SpaceInvaders " in listed.stdout, listed.stdout + listed.stderr


def evaluate(folder, *flags):
    return mains.call("evaluate", f"--workdir={folder}", *flags)


def test_evaluate_plays_the_checkpoint_and_chance(whole):
    folder, _ = whole
    for name, flags in dict(evaluate=[], evaluate_random=["--policy=random"]).items():
        ended = evaluate(folder, "--episodes=3", *flags)
        assert ended.code == 0, ended.stderr
        row = json.loads((folder / f"{name}.json").read_text())
        returns = [row[f"eval/return_{i}"] for i in range(3)]
        assert row["eval/return_mean"] == np.mean(returns)
        assert row["eval/return_stderr"] == pytest.approx(np.std(returns, ddof=1) / np.sqrt(3))
        score = (row["eval/return_mean"] + 20.7) / (9.3 + 20.7)
        assert row["normalised/Mnih 2015"] == pytest.approx(score)
        assert f"human-normalised, Mnih 2015: {score:.1%}" in ended.stdout
        assert (folder / "videos" / f"{name}.mp4").stat().st_size > 0
    assert json.loads((folder / "evaluate.json").read_text())["policy"]["iterations"] == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--episodes=0"], "--episodes=0"),
        (["--policy=best"], "--policy=best"),
        (["--member=1", "--episodes=1"], "--member=1: the run has 1, counted from 0"),
        (["--workdir=nowhere"], "nowhere is not the working folder of a run"),
    ],
)
def test_bad_evaluations_end_in_one_line(whole, flags, message):
    ended = evaluate(whole[0], *flags)
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("--config.train.policy_sees=reconstructions", "--config.model.predictor=autoregressive"),
        ("--config.model.latent=continuous", "--config.model.dimensions=1", "--config.train.hold=5"),
    ],
)
def test_ablations_run_whole(settings, tmp_path):
    ended = mains.start(tmp_path / "run", "--config.train.iterations=2", *settings, experiment=MAIN)
    assert ended.code == 0, ended.stderr
    last = metrics(tmp_path / "run")[-1]
    assert last["iterations"] == 2 and np.isfinite(list(last.values())).all()
    assert ("train/latent_error" in last) == ("continuous" in settings[0])
    if "hold" in settings[-1]:
        with np.load(tmp_path / "run" / "replay" / "000000.npz") as first:
            actions = first["prev_action"][1:16, 0].reshape(3, 5)  # none of the first episode's 25 rows is a first one
            assert (actions == actions[:, :1]).all()


@pytest.mark.slow
def test_a_users_own_environment(tmp_path):
    own = "--config=experiments/smaller_world_models/config.py:py:tests.gym_walk:GridWalk,cpu"
    folder = tmp_path / "run"
    ended = mains.start(folder, own, "--config.env.episode_steps=10", experiment=MAIN)
    assert ended.code == 0, ended.stderr
    last = metrics(folder)[-1]
    assert last["iterations"] == 3 and np.isfinite(list(last.values())).all()
    with np.load(folder / "replay" / "000000.npz") as first:
        assert first["obs"].shape == (61, 1, 8, 8, 1) and first["is_last"].any(), "single grey frames"
        np.testing.assert_array_equal(first["discount"], 1 - first["reward"])  # 1 is earned where an episode ends


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config=experiments/smaller_world_models/config.py:Pongg,cpu", "Did you mean Pong"),
        ("--config=experiments/smaller_world_models/config.py:py:tests.gym_walk:GymWalk,cpu", "needs discrete actions"),
        ("--config=experiments/smaller_world_models/config.py:Pong,gpu", "preset one of paper, cpu"),
        ("--config.env.size=9", "multiples of 2"),
        ("--config.train.warmup_rate=-1.0", "config.train.warmup_rate=-1.0"),
        ("--config.train.interactions=(5,0)", "must be at least 1"),
        ("--config.train.dynamics_chunk=500", "dynamics_chunk"),
        ("--config.model.codess=4", "did you mean codes"),
        ("--config.train.policy_sees=pixels", "choose one of latents, reconstructions"),
        ("--config.model.latent=binary", "choose one of discrete, continuous"),
        ("--config.policy.kernel=4", "config.policy.kernel=4: must be odd"),
        ("--config.policy.hidden=0", "config.policy.hidden=0: must be at least 1"),
        ("--config.population=100000", "config.population=100000"),
        ("--config.population=1000", "GB are free"),
        ("--config=experiments/smaller_world_models/config.py:Pong+Pongg,cpu", "Did you mean Pong"),
        ("--config=experiments/smaller_world_models/config.py:Pong+Pong,cpu", "names one task twice"),
        ("--config=experiments/smaller_world_models/config.py:Pong+Freeway,cpu", "do not fit one program: action"),
    ],
)
def test_bad_input_ends_in_one_line(flag, message, tmp_path):
    flags = ["--config.train.iterations=3000000"] if "GB" in message else []
    ended = mains.refused(tmp_path / "run", flag, *flags, experiment=MAIN)
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert not (tmp_path / "run").exists()


def test_presets_are_whole():
    paper = agents.read_settings(config.get_config("Pong,paper"))
    assert paper.members == (Member("atari:Pong", 0),)
    assert sum(phases.at(paper.train.interactions, i) for i in range(paper.train.iterations)) == 102_400
    assert len(paper.train.epochs) == len(paper.train.rounds) == paper.train.iterations == 15
    agents.read_settings(config.get_config("Breakout,cpu"))


def test_returns_go_on_over_iterations():
    reward = np.float32([[1, 10], [2, 20], [0, 30], [4, 40]])
    is_last = np.array([[False, False], [True, False], [False, False], [True, False]])
    steps = Step(None, None, reward, None, None, is_last)
    ended, left = phases.continued_returns(steps, np.array([100.0, 1000.0]))
    assert ended == [[103.0, 4.0], []]
    np.testing.assert_array_equal(left, [0, 1100])


def test_replay_of_single_frames_gives_the_stacks_that_the_actor_saw():
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (40, 1, 4, 4, 1)).astype(np.uint8)
    is_first = np.zeros((40, 1), bool)
    is_first[[0, 7, 20, 23], 0] = True
    zeros = np.zeros((40, 1), np.float32)
    steps = Step(zeros, obs, np.arange(40, dtype=np.float32)[:, None], zeros, is_first, ~is_first & is_first)
    wide = np.asarray(frames.stack(obs.swapaxes(0, 1), is_first.swapaxes(0, 1), 4))[0]  # [T, X, Y, 4]
    single = phases.newest(steps.replace(obs=wide[:, None]), 4)
    np.testing.assert_array_equal(single.obs, obs)
    memory = replay.extend(replay.init(40, 1, jax.tree.map(lambda x: x[0], single)), single)
    for length in (4, 9):
        batch = phases.stacked(replay.sample(memory, jax.random.key(1), 64, length), 4)
        assert batch.obs.shape == (64, length - 3, 4, 4, 4)
        times = batch.reward.astype(int)  # a chunk's first steps may lack what was before an episode's frames
        whole = np.stack([is_first[: t + 1, 0].nonzero()[0][-1] for t in range(40)])
        for row, t in np.ndindex(*times.shape):
            time = int(times[row, t])
            assert whole[time] <= time
            np.testing.assert_array_equal(batch.obs[row, t], wide[time])


def test_repeated_means_and_order():
    traces = []

    def update(state, key):
        traces.append(None)
        return state + 1, dict(before=state, finite=jnp.array([state < 3, True]))

    state, metrics = jax.jit(lambda n: train.repeated(update, n, jnp.float32(0), jax.random.key(0)))(4)
    assert state == 4 and metrics["before"] == 1.5
    assert len(traces) == 1  # tracing a large update takes seconds
    np.testing.assert_allclose(metrics["finite"], [0.75, 1])


def test_a_point_of_a_curve_is_the_same_however_it_is_cut():
    def update(state, key):
        state = state + jax.random.normal(key)
        return state, dict(state=state)

    summed = jax.jit(lambda first, stop, state: train.summed(update, first, stop, state, jax.random.key(0)))
    whole, sums = summed(0, 7, 0.5)
    state, total = summed(0, 3, 0.5)
    state, more = summed(3, 7, state)
    assert state == whole
    np.testing.assert_allclose(total["state"] + more["state"], sums["state"], rtol=1e-6)


def test_phases_are_as_long_as_their_epochs():
    """Of 6,400 rows: 1,000 batches of 64 in ten epochs; 10 chunks of 32 x 20 in each; what is told last holds on."""
    told = SimpleNamespace(warmup_epochs=10, autoencoder_batch=64, warmup_rate=0.1, rounds=(100, 40))
    told.epochs, told.dynamics_batch, told.dynamics_chunk, told.intervals = (40, 8), 32, 20, (2, 4)
    curves = [phases.curve(name, told, 0, 6400) for name in ("warm_up", "fit", "dream")]
    assert [each.updates for each in curves] == [1000 // 20, 400 // 2 // 20, 100 // 20]
    assert [each.each for each in curves] == [1, 2, 1]
    assert [phases.curve(name, told, 7, 6400).updates for name in ("fit", "dream")] == [80 // 4 // 20, 40 // 20]
    sums = dict(loss=np.float32([20, 40]), grad_finite=dict(w=np.float32([10, 10])))
    means = phases.check_and_means(sums, phases.Curve(10, 1, ()), 1, [Path("a"), Path("b")])
    assert means == [{"train/loss": 2.0}, {"train/loss": 4.0}]


def test_dispatches_follow_each_other_through_a_phase():
    curve = phases.Curve(57, 1, ())
    for members, most in ((1, 10), (3, 3), (1000, 1)):
        done, seen, sizes = 0, [], set()
        while done < phases.BINS * 57:
            point, first, stop = curve.part("fit", done, members)
            seen += [(point, i) for i in range(first, stop)]
            sizes.add(stop - first)
            done += stop - first
        assert seen == [(point, i) for point in range(phases.BINS) for i in range(57)] and max(sizes) == most


def test_a_larger_ring_draws_the_same_rows():
    """So a run may be prolonged: its replay has room for all iterations."""
    time = np.arange(30, dtype=np.int32)[:, None]
    first = np.isin(time, (0, 7, 20))
    steps = Step(time, time, time, time, first, np.roll(first, -1))

    @jax.jit
    def draw(memory, key):
        memory = replay.extend(memory, steps)
        return [sample(memory, key, 50, 6).reward for sample in (replay.sample, replay.sample_within_episodes)]

    empty = [replay.init(capacity, 1, jax.tree.map(lambda x: x[0], steps)) for capacity in (30, 45)]
    one, other = (draw(memory, jax.random.key(1)) for memory in empty)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert len(np.unique(one[0])) > 10 and not np.array_equal(*one)


def test_last_window_stays_inside_an_episode():
    def steps(*firsts):
        is_first = np.zeros((30, 1), bool)
        is_first[list(firsts), 0] = True
        time = np.arange(30)[:, None]
        return Step(time, time, time, time, is_first, is_first)

    expected = {(): 20, (0, 25): 15, (5, 25): 15, (12, 20): 20, (0, 9, 18, 27): 20}
    for firsts, first in expected.items():
        assert predictions.last_window(steps(*firsts), 10).reward[0, 0] == first


def counting_agent():
    """An agent whose latent is the one pixel of an image, of 8 values; its model adds the action, as the world does."""

    def observe(params, key, state, prev_action, embed, is_first):
        return embed, ()

    def imagined(params, key, state, action):
        return (state + action.argmax(-1)[:, None, None]) % 8

    model = WorldModel(
        initial=lambda params, rows: jnp.zeros((rows, 1, 1), jnp.int32),
        encode=lambda params, obs: obs[..., 0].astype(jnp.int32),
        observe=observe,
        imagine=imagined,
        features=None,
        reward=lambda params, state: 0.5 * (state[:, 0, 0] == 0),
        discount=None,
        decode=None,
        feature_shape=(),
    )
    nothing = dict.fromkeys(("learner", "updates", "image", "policy", "actor", "action_spec"))
    network = VectorPolicy(3)  # asked for its number of actions alone
    return agents.Agent(model=model, codes=lambda params, state: state, network=network, **nothing)


def counting_world(rows, time, wrong=0.0):
    """Step [rows, time]; a share `wrong` of the actions is not what moved the pixel. At 0 it is rewarded with 7."""
    rng = np.random.default_rng(0)
    action = rng.choice(3, (rows, time), p=(0.6, 0.3, 0.1)).astype(np.int32)
    pixel = np.cumsum(action, axis=1) % 8
    said = np.where(rng.random((rows, time)) < wrong, (action + 1) % 3, action).astype(np.int32)
    reward, false = 7 * (pixel == 0).astype(np.float32), np.zeros((rows, time), bool)
    return Step(said, pixel[..., None, None, None].astype(np.uint8), reward, 1 + 0 * reward, false, false.copy())


def test_predicted_latents_are_counted_beside_their_baselines():
    agent, spec = counting_agent(), EnvSpec(jax.ShapeDtypeStruct((1, 1, 1), np.uint8), ActionSpec(3, True, 0, 2))
    steps = counting_world(40, 30)
    stored = jax.tree.map(lambda x: x.swapaxes(0, 1)[:, :1], counting_world(1, 300))
    memory = replay.extend(replay.init(300, 1, jax.tree.map(lambda x: x[0], stored)), stored)
    measure = predictions.make_prediction_metrics(agent, spec, 1)
    shares = measure({}, jax.random.key(0), memory, steps)
    pixel = steps.obs[..., 0, 0, 0].astype(int)
    assert shares["one_step/accuracy"] == shares["open_loop/accuracy"] == 1
    np.testing.assert_allclose(shares["one_step/copy_last_frame"], (pixel[:, 1:] == pixel[:, :-1]).mean(), rtol=1e-5)
    np.testing.assert_allclose(shares["open_loop/copy_last_frame"], (pixel[:, 5:] == pixel[:, 4:5]).mean(), rtol=1e-5)
    likely = [(pixel[:, 1:] == value).mean() for value in range(8)]
    assert np.isclose(
        likely, shares["one_step/majority_baseline"], rtol=1e-5
    ).any()  # one value, whichever the replay has most
    for name, first in (("one_step", 1), ("open_loop", 5)):  # the model expects half of what there is
        true = (pixel[:, first:] == 0).sum()
        assert (shares[f"{name}/reward_expected"], shares[f"{name}/reward_true"]) == (true / 2, true) and true > 20

    other = measure({}, jax.random.key(0), memory, counting_world(40, 30, wrong=0.25))
    np.testing.assert_allclose(other["one_step/accuracy"], 0.75, atol=0.04)
    assert other["open_loop/accuracy"] < 0.4

    cut = steps.replace(is_first=steps.is_first.copy(), obs=steps.obs.copy())
    cut.is_first[:20, 12] = True
    cut.obs[:20, 12:] = 9  # never predicted, and never counted
    shares = measure({}, jax.random.key(0), memory, cut)
    assert shares["one_step/accuracy"] == shares["open_loop/accuracy"] == 1
    assert shares["one_step/reward_true"] == (pixel[:20, 1:12] == 0).sum() + (pixel[20:, 1:] == 0).sum()


def test_most_frequent_codes():
    codes = np.random.default_rng(0).integers(0, 4, (51, 2, 3))
    expected = [[np.bincount(codes[:, i, j]).max() for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal((codes == np.asarray(predictions.most_frequent(jnp.array(codes)))).sum(0), expected)


def test_windows_are_pieces_of_the_first_rows():
    time = np.broadcast_to(np.arange(120)[:, None], (120, 6)) + 1000 * np.arange(6)
    pieces = predictions.windows(Step(time, time, time, time, time, time)).reward
    assert pieces.shape == (predictions.HELD_OUT * 2, predictions.PREDICTED)
    assert sorted(pieces[:, 0]) == [0, 50, 1000, 1050, 2000, 2050, 3000, 3050]
    assert (np.diff(pieces, axis=1) == 1).all()
    assert predictions.windows(Step(*6 * [time[:30]])).reward.shape == (predictions.HELD_OUT, 30)
