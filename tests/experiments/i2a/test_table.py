"""The table of agents: its numbers from known curves, the runs that it asks for, refusals."""

import argparse
import json

import numpy as np
import pytest

from experiments.i2a import agent, config, table
from tests import mains
from wmjax.agents.i2a.actor import check_trunk


def options(**changed):
    told = dict(env="minipacman:hunt", preset="cpu", agents=["model_free", "uniform"], model="sssm", seeds=2, data=1000)
    told |= dict(model_preset="cpu", model_set=[], set=[], policy="random")
    return argparse.Namespace(**told | changed)


def curve(slope, seconds=10.0, frames=1000):
    """Returns rise by `slope` a frame; lines at every tenth."""
    x = np.arange(1, 11) * frames / 10
    return table.Curve(x, x / frames * seconds, slope * x, x / 4)


def test_returns_at_equal_frames_and_seconds():
    """The model's 100 frames of data are a tenth: with them counted the uniform agent is read one line earlier."""
    curves = dict(model_free=[curve(1), curve(3)], uniform=[curve(2, seconds=20.0), curve(6, seconds=20.0)])
    lines = table.lines(options(), "minipacman:hunt", curves, data=100)
    rows = cells(lines)
    assert rows[2][:1] + rows[2][3:] == ["model_free", "2000.0", "2000.0", "2000.0"]
    assert rows[3][:1] + rows[3][3:] == ["uniform", "4000.0", "3600.0", "2000.0"]  # at 10 s: half of its frames
    without, counted = rows[7][1:3]
    assert (float(without), float(counted)) == (2.0, 1.8)
    assert rows[8][0] == "" and rows[-1][:1] == ["uniform"]  # how soon episodes last


def test_returns_below_0_have_no_ratio_and_runs_no_number_beyond_them():
    curves = dict(model_free=[curve(-1), curve(1)], uniform=[curve(2, seconds=200.0), curve(2, seconds=200.0)])
    rows = cells(table.lines(options(), "minipacman:hunt", curves, data=0))
    assert rows[3][-1] == "no" and rows[7][1:3] == ["-", "-"]


def cells(lines):
    """The first words of the cells of all rows of markdown tables."""
    return [[cell.strip().split(" ")[0] for cell in line.strip("|").split("|")] for line in lines if line[0:1] == "|"]


def lasting(at, end=1_000_000):
    """Episodes last 100 decisions from the `at`-th of ten lines on."""
    frames = np.linspace(0.1, 1, 10) * end
    return table.Curve(frames, frames, frames, np.where(np.arange(1, 11) < at, 99.9, 100.0))


def test_how_soon_episodes_last_beside_the_better_baseline_of_each_seed():
    """At line 11 never; all but model_free count 0.1 million frames of data."""
    model_free, copy, uniform = ([lasting(at) for at in each] for each in ([8, 11, 5], [6, 11, 11], [2, 4, 11]))
    told = table.survival(dict(model_free=model_free, copy=copy, uniform=uniform), 100_000)
    rows = {name: own for name, *own in ([cell.strip() for cell in line.strip("|").split("|")] for line in told[2:])}
    assert rows["model_free"] == ["0.80M, not reached, 0.50M", "1.14, not reached, 1.00"]
    assert rows["copy"][0] == "0.70M, not reached, not reached"
    assert rows["uniform"] == ["0.30M, 0.50M, not reached", "0.43, under 0.50, not reached"]
    assert "over the better of model_free and copy" in told[0]
    assert table.survival(dict(uniform=uniform), 0)[0].count("|") == 3  # no baselines, no ratio


def test_episodes_survive_when_they_first_last():
    assert table.survives(curve(1)) == 400.0
    assert table.survives(curve(1, frames=100)) == np.inf


def test_returns_between_two_lines_and_beyond_all():
    found = table.returns_at([curve(1), curve(2)], "frames", 250.0)
    assert np.array_equal(found, [250.0, 500.0])
    assert np.isnan(table.returns_at([curve(1)], "frames", 50.0)).all()


def test_runs_are_those_that_the_mains_take(tmp_path):
    """Settings are checked by the main's own reading; modulation asks a model that is told no actions."""
    each = table.training(options(), tmp_path, tmp_path / "a", "modulation", 1)
    assert f"--config.model_run={tmp_path / 'model_without_actions'}" in each.command
    assert table.models_of(["model_free", "modulation"]) == ["model_without_actions"]
    assert (
        "--config.model.sees_actions=False"
        in table.model_training(options(), tmp_path, "model_without_actions").command
    )
    settings = agent.read_settings(config.get_config("minipacman:hunt,model_free,cpu"))
    assert settings.agent.rollout_policy == "none" and settings.model_run == ""
    record = table.recording(options(env="MsPacman", preset="cpu_games"), tmp_path, "atari:MsPacman").command
    assert "--size=80x64" in record and "--actions=0,2,3,4,5" in record
    assert "--steps=1000" in record and "--rows=12" in record  # 1,000 decisions of 8 rows in 11 shards
    changed = options(env="MsPacman", preset="cpu_games", set=["env.size=(63,48)", "env.crop=3"])
    assert "--size=60x48" in table.recording(changed, tmp_path, "atari:MsPacman").command


@pytest.mark.parametrize(
    ("preset", "task", "shape"),
    [
        ("paper", "MsPacman", (200, 160, 3)),
        ("cpu_games", "MsPacman", (80, 64, 3)),
        ("cpu", "minipacman:hunt", (15, 19, 3)),
        ("cpu", "minipacman:rush", (9, 11, 3)),
    ],
)
def test_presets_fit_the_images_of_their_environments(preset, task, shape):
    settings = agent.read_settings(config.get_config(f"{task},model_free,{preset}"))
    check_trunk(settings.agent, shape)
    if task == "MsPacman":
        assert (settings.env["size"][0] - settings.env["crop"], settings.env["size"][1]) == shape[:2]
        assert settings.env["actions"] == (0, 2, 3, 4, 5)


def test_data_count_for_agents_that_need_them():
    """An untrained model has seen nothing; a random one of 1,000 frames is a tenth later with 100 of data."""
    told = table.lines(options(), "minipacman:hunt", {name: [curve(1)] for name in ("untrained", "copy")}, data=100)
    assert [row[4] for row in cells(told)[2:4]] == ["1000.0", "900.0"]
    assert "played by random" in told[0]
    assert cells(table.survival(dict(untrained=[lasting(3)], copy=[lasting(3)]), 100_000))[2][1] == "0.30M"


def test_the_models_data_are_counted_in_frames_of_the_environment(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(table.runs, "train_missing", lambda *args: None)
    monkeypatch.setattr(table, "read_curve", lambda folder: curve(1))
    monkeypatch.setattr(table, "lines", lambda options, task, curves, data: told.append(data) or [])
    for number, (env, preset) in enumerate((("MsPacman", "cpu_games"), ("minipacman:hunt", "cpu"))):
        words = (f"--folder={tmp_path / str(number)}", f"--env={env}", f"--preset={preset}", "--agents=copy")
        assert mains.call("i2a.table", *words, "--seeds=1", "--data=25").code == 0
    assert told == [100, 25]  # a decision is four frames of a game, and one of the others


def test_seconds_are_those_of_training(tmp_path):
    rows = [{"env_steps": 10 * i, "time/total": 7.0, "time/evaluate": 2.0, "time/train": 4.0} for i in (1, 2)]
    told = [json.dumps(row | {table.RETURN: 1.0, table.LENGTH: 1.0}) for row in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join(told) + "\n")
    assert np.array_equal(table.read_curve(tmp_path).seconds, [5.0, 10.0])


def test_a_run_in_which_no_episode_ended_has_no_numbers(tmp_path):
    for name, ended in (("whole", {table.RETURN: 2.0, table.LENGTH: 9.0}), ("endless", {table.RETURN: None})):
        (tmp_path / name).mkdir()
        row = {"env_steps": 1000, "time/total": 7.0} | ended
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    curves = dict(model_free=[table.read_curve(tmp_path / "whole")], copy=[table.read_curve(tmp_path / "endless")])
    rows = cells(table.lines(options(seeds=1), "minipacman:hunt", curves, data=0))
    assert rows[2][3] == "2.0" and rows[3][1:] == ["no"] * 5
    assert rows[-1] == ["copy", "not", "not"]


def test_a_folder_is_of_one_set_of_settings(tmp_path, monkeypatch):
    """Runs that are done are not started again: with other settings they would be shown under a wrong name."""
    monkeypatch.setattr(table.runs, "train_missing", lambda *args: None)
    monkeypatch.setattr(table, "read_curve", lambda place: curve(1))
    words = ("--model=simulator", "--agents=model_free", "--seeds=1", f"--folder={tmp_path}")
    for flags, message in (
        ([], None),
        (["--seeds=2"], None),
        (["--set=agent.horizon=3"], "set [] -> ['agent.horizon=3']"),
        (["--preset=cpu_games"], "preset cpu -> cpu_games"),
    ):
        ended = mains.call("i2a.table", *words, *flags)
        assert ended.code == (2 if message else 0), ended.stderr
        if message:
            assert message in ended.stderr and ended.stderr.count("\n") == 1
    for damage in ("", "[1]", "{"):
        (tmp_path / table.DEFINITION).write_text(damage)
        ended = mains.call("i2a.table", *words)
        assert ended.code == 2 and "is damaged" in ended.stderr and ended.stderr.count("\n") == 1, damage


def test_a_models_preset_goes_with_that_of_its_agents(tmp_path):
    for preset, own in (("cpu", "cpu_grid"), ("cpu_games", "cpu_games"), ("paper", "paper")):
        told = table.model_training(options(preset=preset, model_preset=""), tmp_path, "model").command
        assert any(word.endswith(f",sssm,{own}") for word in told)
    told = table.model_training(options(preset="paper", model_preset="cpu"), tmp_path, "model").command
    assert any(word.endswith(",sssm,cpu") for word in told)


def test_pixels_have_a_stronger_summariser_than_states():
    for preset in ("paper", "cpu_games"):
        pixels, states = (config.get_config(f"MsPacman,{name},{preset}").agent for name in ("pixels", "distilled"))
        assert pixels.encoder_strided and (preset != "paper" or not states.encoder_strided)


def test_modulation_asks_an_sssm_and_is_refused_before_another_is_trained(tmp_path):
    ended = mains.call("i2a.table", f"--folder={tmp_path}", "--agents=modulation", "--model=dssm_det")
    assert ended.code == 2 and "agent modulation asks an sssm" in ended.stderr and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--set=kind=copy", "--set=kind=copy: give --agents instead"),
        ("--agents=", "--agents=: give at least one of model_free, copy"),
        ("--agents=uniform,a3c", "unknown --agents 'a3c'"),
        ("--model=gan", "unknown --model 'gan'"),
        ("--model=ar", "unknown --model 'ar'"),
        ("--model=vae", "unknown --model 'vae'"),
        ("--preset=tiny", "unknown --preset 'tiny'"),
        ("--cores=a", "--cores=a: must be numbers"),
        ("--cores=0,4096", "--cores=4096: there is no such core; choose of "),
        ("--set=agent.rollouts=4", "config.agent.rollouts=4: with force_first=True there is one for each of the 5"),
        ("--env=minipacman:ping", "unknown minipacman mode 'ping'"),
        ("--set=agent.horizn=2", "config.agent.horizn does not exist"),
        ("--model_set=model.jump=3", "does not divide config.train.predicted=5"),
        ("--model_set=model.jumpp=2", "config.model.jumpp does not exist"),
        ("--model=simulator", "is for environments in pure JAX, and not for agent untrained"),
        ("--seeds=0", "seeds"),
        ("--policy=/no/such", "--policy=/no/such: holds no run; give random, or the folder of a run"),
    ],
)
def test_refusals_are_one_line(flag, message, tmp_path):
    ended = mains.call("i2a.table", f"--folder={tmp_path}", flag)
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())  # nothing has been recorded or trained


@pytest.mark.parametrize(
    ("name", "why"), [("config.json", "is the working folder of a run"), ("", "cannot write into")]
)
def test_tables_take_no_folder_of_a_run_and_no_file(name, why, tmp_path):
    (tmp_path / "a").mkdir() if name else (tmp_path / "a").touch()
    (tmp_path / "a" / name).touch()
    ended = mains.call("i2a.table", f"--folder={tmp_path / 'a'}")
    assert ended.code == 2 and why in ended.stderr and ended.stderr.count("\n") == 1
