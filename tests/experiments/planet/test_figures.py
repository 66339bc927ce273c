"""Figures over many runs: what is trained, the tables and pictures, the error by step."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from experiments.planet import figures, simulator
from tests import mains
from wmjax.planners import CEMConfig
from wmjax.run import cli, jobs

LONG = "--set=env.episode_steps=50"  # rows that the open loop needs, and one more


def run(*args):
    return cli.run(figures.main, ["figures", *args])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny finished run whose episodes have as many rows as the open loop needs."""
    folder = tmp_path_factory.mktemp("figures") / "run"
    settings = ("--config.env.episode_steps=50", "--config.train.replay_rows=400", "--config.evaluation.episodes=1")
    ended = mains.start(folder, *settings)
    assert ended.code == 0, ended.stderr
    return folder


def test_what_is_missing_is_trained_and_all_is_drawn(whole, tmp_path, monkeypatch, capsys):
    asked = []

    def run_all(trainings, slots, tries):
        for training in trainings:
            asked.append((*mains.settings_of(training), *slots[0].prefix))
            shutil.copytree(whole, training.folder)
            yield training, jobs.Ended(0, "", 0)

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.setattr(figures, "PARTS", dict(models=["rssm", "ssm"], open_loop=["rssm"]))
    options = (
        "--task=fake:counter",
        "--seeds=2",
        "--episodes=5",
        "--set=train.seed_episodes=2",
        "--cores=1",
        "--parts=models",
    )
    assert run(*options, f"--folder={tmp_path}") == 0
    common = ("train.episodes=5", "train.seed_episodes=2", "taskset", "-c", "1")
    assert sorted(asked) == sorted(
        (f"seed={seed}", common[0], *kind, *common[1:]) for seed in (0, 1) for kind in ((), ("model.kind=ssm",))
    )
    text = (tmp_path / "figures.md").read_text()
    assert "## models" in text and " 5 episodes |" in text and (tmp_path / "models.png").stat().st_size > 0
    assert capsys.readouterr().out.endswith(text)
    monkeypatch.setattr(jobs, "run_all", lambda *args, **more: (each for each in ()))  # finished
    assert run(*options[:-1], "--parts=open_loop", LONG, f"--folder={tmp_path}") == 0
    text = (tmp_path / "figures.md").read_text()
    assert "| copying the last frame |" in text and "| rssm" in text
    assert all((tmp_path / f"{name}.png").stat().st_size > 0 for name in ("open_loop", "open_loop_errors"))


def test_a_run_that_diverged_is_told_and_left_out(whole, tmp_path, monkeypatch):
    codes = {"rssm_seed_1": 3, "ssm_seed_0": 3, "ssm_seed_1": 3}

    def run_all(trainings, slots, tries):
        for training in trainings:
            shutil.copytree(whole, training.folder, dirs_exist_ok=True)
            code = codes.get(training.folder.name, 0)
            yield training, jobs.Ended(code, "error: update 9: kl is not finite" if code else "", 0)

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.setattr(figures, "PARTS", dict(models=["rssm", "ssm"], open_loop=["ssm"]))
    options = ("--task=fake:counter", "--seeds=2", "--episodes=6", f"--folder={tmp_path}", "--parts=models,open_loop")
    assert run(*options, LONG) == 0
    text = (tmp_path / "figures.md").read_text()
    assert all(f"{name} diverged and is left out: error: update 9: kl is not finite" in text for name in codes)
    assert "| rssm |" in text and "| ssm |" not in text and "## open_loop\n\nEvery run diverged." in text


def test_the_true_simulator_is_played_with_the_papers_planner(tmp_path, monkeypatch, capsys):
    """Table 1's row; the same command again plays nothing."""
    played = []

    def play(setting):
        played.append(setting)
        return {"return": 600.0 + setting.seed, "decisions": 250, "seconds": 50.0, "threads": 2}

    monkeypatch.setattr(simulator, "play", play)
    monkeypatch.setattr(jobs, "run_all", lambda *args, **more: (each for each in ()))
    for _ in range(2):
        assert run("--parts=simulator", "--seeds=2", f"--folder={tmp_path}") == 0
    assert [(each.task, each.seed, each.action_repeat) for each in played] == [("cheetah_run", i, 4) for i in (0, 1)]
    assert {each.planner for each in played} == {CEMConfig()}
    assert "| 600, 601 |       656 |" in (tmp_path / "figures.md").read_text()


def test_errors_are_by_step_after_the_context():
    rng = np.random.default_rng(0)
    true, images = rng.integers(0, 256, (2, 2, 8, 4, 4, 1), np.uint8)
    expected = [np.mean([(images[b, t] / 255 - true[b, t] / 255) ** 2 for b in range(2)]) for t in range(5, 8)]
    np.testing.assert_allclose(figures.pixel_error(images, true), expected)
    still = [np.mean([(true[b, 4] / 255 - true[b, t] / 255) ** 2 for b in range(2)]) for t in range(5, 8)]
    np.testing.assert_allclose(figures.pixel_error(true[:, 4:5], true), still)
    assert figures.pixel_error(true, true).max() == 0


def test_episodes_too_short_for_the_open_loop_are_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "short")
    config = pathlib.Path(tmp_path / "short" / "config.json")
    content = json.loads(config.read_text())
    content["env"]["episode_steps"] = 20
    config.write_text(json.dumps(content))
    with pytest.raises(figures.UsageError, match="needs episodes of 50 rows: fake:counter has 21"):
        figures.test_episodes(tmp_path / "short")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give --folder=DIR"),
        (["--folder=x", "--parts="], "--parts=: give at least one of models, planning"),
        (["--folder=x", "--parts=fig4"], "unknown --parts 'fig4'. Allowed: activations, models"),
        (["--folder=x", "--preset=gpu"], "unknown --preset 'gpu'. Did you mean cpu"),
        (["--folder=x", "--cores=a"], "--cores=a: must be numbers of cores"),
        (["--folder=x", "--set=model.kind=ssm"], "--set=model.kind=ssm: give --parts instead"),
        (["--folder=x", "--set=task=walker_walk"], "--set=task=walker_walk: give --task instead"),
        (
            ["--folder=x", "--set=planner.name=cem"],
            "config.planner.name: --set gives it twice, or it is what this command",
        ),
        (["--folder=x", "--task=fake:counter"], "unknown task of --parts=simulator 'fake:counter'"),
        (
            ["--folder=x", "--parts=models,open_loop", "--task=fake:counter", "--set=env.episode_steps=48"],
            "--parts=open_loop needs episodes of 50 rows: fake:counter has 49",
        ),
        (["--folder=x", "--parts=models", "--task=fake:countr"], "unknown fake task 'countr'"),
        (["--folder=/dev/null"], "cannot write into /dev/null"),
    ],
)
def test_refusals(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
