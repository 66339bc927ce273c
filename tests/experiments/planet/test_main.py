"""PlaNet's main as a user runs it: it trains, resumes bit for bit after a kill, and refuses bad input in one line."""

import json
import pathlib
import shutil
import signal

import numpy as np
import pytest

from experiments.planet import interactive, scores
from tests import exporting, mains
from tests.mains import assert_as_whole, metrics, summary
from wmjax.storage import checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return mains.whole_run(tmp_path_factory)


def test_run_leaves_what_a_user_expects(whole):
    folder, _ = whole
    rows = metrics(folder)
    assert [row["episodes"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["updates"] for row in rows] == [0, 0, 2, 4, 6]
    assert rows[-1]["env_steps"] == 5 * 12
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert [("eval/return_mean" in row) for row in rows] == [False, False, False, True, True]
    told = summary(folder)
    assert told["episodes"] == 5 and told["finished"]
    evaluated = [row for row in rows if "eval/return_mean" in row]
    assert [each["eval/return_mean"] for each in told["evaluations"]] == [r["eval/return_mean"] for r in evaluated]
    assert list(mains.kept(folder)) == ["000000.npz", "000001.npz"]
    for steps, row in zip(checkpoint.load_rows(folder, 2, checkpoint.EVALUATION), evaluated, strict=True):
        np.testing.assert_allclose(steps.reward.sum(axis=0), [row["eval/return_0"], row["eval/return_1"]], rtol=1e-5)
    assert (folder / "videos" / "episode_000004.mp4").stat().st_size > 0
    assert (folder / "videos" / "open_loop_episode_000004.png").stat().st_size > 0
    assert "return" in (folder / "report.html").read_text()


def test_every_program_of_a_run_lowers_for_accelerators(whole):
    found = mains.exports(whole)
    assert not any(found.values()), found
    files = (f"experiments/planet/{name}.py" for name in ("__main__", "agent", "phases", "predictions"))
    unused = exporting.sites("wmjax/run/unroll.py")
    assert exporting.sites(*files, "wmjax/run/*.py") - unused <= found.keys()


def test_a_run_stopped_killed_and_prolonged_ends_bit_identical(whole, tmp_path):
    """Told to end in an episode beside its updates, then by the clock; killed after the next; finished after 4 of 5.

    Killed before every move: tests/run/test_lifecycle.py.
    """
    folder, step = tmp_path / "run", "wmjax.envs.fake:FakeVecEnv.step"
    flags = ("--config.train.episodes=4", "--config.train.checkpoint_every=100")
    stopped = mains.start(folder, *flags, stop_at=(step, 2 * 12 + 5))  # in the third episode, the first that trains
    assert stopped.code == 75 and stopped.stderr.endswith("stopped by SIGTERM: the same command goes on\n")
    assert stopped.stderr.count("\n") == 2, stopped.stderr
    assert summary(folder) | dict(minutes=0) == dict(
        finished=False, minutes=0, planned=dict(episodes=4), env_steps=24, episodes=2, updates=0, evaluations=[]
    )
    assert metrics(folder) == metrics(whole[0])[:2] and (folder / "report.html").exists()

    timed = mains.start(folder, *flags, over_at=2)
    assert timed.code == 0, timed.stderr
    assert summary(folder)["episodes"] == 3 and not summary(folder)["finished"]
    assert [each["episodes"] for each in summary(folder)["evaluations"]] == [3]  # none in a run that goes on
    assert (folder / "videos" / "episode_000003.mp4").stat().st_size > 0
    assert (folder / "videos" / "open_loop_episode_000003.png").stat().st_size > 0

    assert mains.start(folder, *flags, kill_at="episode_000004.mp4").code == -signal.SIGKILL
    assert len(list((folder / "replay").glob("0*.npz"))) == 4 and len(metrics(folder)) == 3
    later = folder / "evaluation" / "000007.npz"  # as of an evaluation that no checkpoint knows
    later.parent.mkdir(exist_ok=True)
    later.write_bytes(b"")
    finished = mains.start(folder, *flags)
    assert finished.code == 0 and summary(folder)["finished"] and metrics(folder) == metrics(whole[0])[:4]
    prolonged = mains.start(folder)
    assert prolonged.code == 0 and summary(folder)["finished"]
    assert "train.episodes 4 -> 5" in prolonged.stderr and prolonged.stderr.count("\n") == 1
    assert_as_whole(folder, whole)


def test_overlap_is_one_phase_late(whole, tmp_path):
    """Sequential or overlapped, the first phase sees the same episodes; later ones are played by other parameters."""
    ended = mains.start(tmp_path / "run", "--config.train.overlap=False")
    assert ended.code == 0, ended.stderr
    sequential, overlapped = metrics(tmp_path / "run"), metrics(whole[0])
    assert sequential[2]["train/loss"] == overlapped[2]["train/loss"]
    assert [row["collect/return"] for row in sequential] != [row["collect/return"] for row in overlapped]


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--config.train.batches=3"], ["config.train.batches", "batch"]),
        (["--config.planner.elites=11"], ["elites 11", "10"]),
        (["--config.planner.horizon=0"], ["config.planner.horizon=0"]),
        (["--config.train.chunk=99"], ["chunk=99", "13 rows"]),
        (["--config.train.replay_rows=9"], ["replay_rows=9", "13"]),
        (["--config.env.size=24"], ["24x24", "16, 32, 64"]),
        (["--config.train.replay_rows=2000000000"], ["GB"]),
        (["--config.family=lstm"], ["config.family", "lstm", "rssm"]),
        (["--config.model.kind=lstm"], ["lstm", "rssm, ssm, rnn, drnn"]),
        (["--config.train.batch=many"], ["config.train.batch", "many"]),
        (["--config.seed=-1"], ["config.seed=-1"]),
        (["--config.train.seed_episodes=5"], ["train.episodes=5", "train.seed_episodes=5", "nothing is trained"]),
        (["--minutes=0"], ["minutes=0", "above 0"]),
        (["--minutes=nan"], ["minutes=nan", "above 0"]),
        (["--nonsense"], ["nonsense"]),
        (["--config=experiments/planet/config.py:fake:countr,cpu"], ["countr", "counter"]),
        (["--config=experiments/planet/config.py:fake:counter,gpu"], ["paper, cpu"]),
    ],
)
def test_bad_input_is_one_line(flags, named, tmp_path):
    folder = tmp_path / "run"
    ended = mains.refused(folder, *flags)
    assert ended.code == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert all(word in ended.stderr for word in named), ended.stderr
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_refused_before_environments_are(tmp_path):
    (tmp_path / "file").touch()
    words = ("--config=experiments/planet/config.py:fake:countr,cpu", f"--workdir={tmp_path / 'file' / 'run'}")
    for module, *more in (["__main__"], ["doctor"], ["offline", f"--train={tmp_path}", f"--test={tmp_path}"]):
        ended = mains.call(f"planet.{module}", *words, *more)
        assert ended.code == 2 and "file is not a folder" in ended.stderr and ended.stderr.count("\n") == 1


def test_other_config_in_the_same_folder_is_refused(whole):
    folder: pathlib.Path = whole[0]
    before = metrics(folder)
    ended = mains.refused(folder, "--config.train.batch=5")
    assert ended.code == 2
    assert "train.batch 4 -> 5" in ended.stderr
    assert metrics(folder) == before


def evaluate(folder, *flags):
    return mains.call("evaluate", f"--workdir={folder}", *flags)


def test_evaluate_reloads_a_checkpoint(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    ended = evaluate(folder, "--episodes=2")
    assert ended.code == 0, ended.stderr
    row = json.loads((folder / "evaluate.json").read_text())
    assert row["policy"] == dict(name="planet", episodes=5, updates=6)
    assert "checkpoint of planet after 5 episodes, 6 updates" in ended.stdout
    assert f"mean {row['eval/return_mean']:.1f}, standard error" in ended.stdout
    assert (folder / "videos" / "evaluate.mp4").stat().st_size > 0

    for manifest in folder.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    ended = evaluate(folder)
    assert ended.code == 2 and "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith("error: ")


def test_play_shows_an_episode_beside_the_imagination(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    ended = mains.call("planet.play", f"--workdir={folder}", "--every=5")
    assert ended.code == 0, ended.stderr
    first, *errors, last = ended.stdout.splitlines()
    assert first == "checkpoint after episode 5, 6 updates"
    assert [line.split()[0] for line in errors] == ["0", "2", "4"]
    video = folder / "videos" / "play_000005.mp4"
    assert last.startswith("return ") and last.endswith(f" in 12 decisions; video: {video}")
    assert video.stat().st_size > 0


def test_play_serves_the_imagination(whole, monkeypatch):
    served = []
    monkeypatch.setattr(interactive, "serve", served.append)
    ended = mains.call("planet.play", f"--workdir={whole[0]}", "--interactive", "--port=0")
    assert ended.code == 0, ended.stderr
    (server,) = served
    with server:
        imagination = server.RequestHandlerClass.args[0]
        begun = imagination.begin()
        views = [imagination.step(np.full(2, push, np.float32)) for push in (1, -1)]
    assert [each.steps for each in (begun, *views)] == [0, 1, 2]
    assert begun.reward == 0 != views[0].reward != views[1].reward and begun.image != views[0].image


def diagnose(folder, *flags):
    return mains.call("planet.diagnostics", f"--workdir={folder}", "--episodes=4", "--updates=20", *flags)


def test_diagnostics_measure_a_run_and_leave_it_as_it_is(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended = diagnose(folder)
    assert ended.code == 0, ended.stderr
    written = {path.name for path in folder.rglob("*") if path.is_file() and path not in before}
    assert written == {"diagnostics.md", "diagnostics.png", "diagnostics.json"}
    assert all(path.read_bytes() == content for path, content in before.items())
    told = json.loads((folder / "diagnostics.json").read_text())
    assert told["windows"] == 1 and told["checkpoint_episodes"] == 5 and told["fitting_episodes"] == 3
    assert list(told["r2"]) == ["state 0", "state 1", "reward"]
    for each in told["r2"].values():  # 13 rows in an episode, 5 of them seen
        assert each["last value"][0] == 1 and len(each["model"]) == len(each["last value"]) == 9
    rows = [line.split("|")[1:-1] for line in (folder / "diagnostics.md").read_text().splitlines() if line[:1] == "|"]
    assert [cell.strip() for cell in rows[0]] == ["R2 after steps", "0", "1", "5"]
    assert [float(cell) for cell in rows[4][1:]] == [
        pytest.approx(told["r2"]["state 0"]["model"][step], abs=0.005) for step in (0, 1, 5)
    ]
    assert (folder / "diagnostics.png").read_bytes()[:4] == b"\x89PNG"


def test_diagnostics_refuse_what_they_cannot_measure(whole, tmp_path):
    refused = [(diagnose(whole[0], "--episodes=3"), "episodes"), (diagnose(tmp_path / "nowhere"), "nowhere")]
    (tmp_path / "config.json").write_text(json.dumps(dict(task="atari:Pong", agent={})))
    refused.append((diagnose(tmp_path), "another experiment"))
    short = tmp_path / "short"
    shutil.copytree(whole[0], short)
    config = json.loads((short / "config.json").read_text())
    config["env"]["episode_steps"] = 4
    (short / "config.json").write_text(json.dumps(config))
    refused.append((diagnose(short), "more than 5 images"))
    for ended, said in refused:
        assert ended.code == 2 and said in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr


def test_references_are_published_returns_of_whole_episodes():
    assert scores.references("dmc:cheetah_run", {"size": 32}) == {"PlaNet, 1,000 episodes": 662.0}
    assert scores.references("dmc:cheetah_run", {"episode_steps": 100}) == {}
    assert scores.references("dmc:walker_run", {}) == scores.references("fake:counter", {}) == {}
