"""Playing with the true simulator: one real episode, what is kept and played again, the tables and pictures."""

import json
import signal

import pytest

from experiments.planet import planner_sweep, simulator
from wmjax.planners import CEMConfig
from wmjax.run import cli, stop

TINY = CEMConfig(2, 1, 4, 2)


def run(module, *args):
    return cli.run(module.main, ["tool", *args])


@pytest.fixture
def played(monkeypatch):
    """Episodes whose return is told by their Setting, in no time; the list of what was played."""
    settings = []

    def play(setting):
        settings.append(setting)
        value = 100.0 * setting.seed + setting.planner.horizon + setting.planner.iterations
        return {"return": value, "decisions": 250, "seconds": 50.0, "threads": 2}

    monkeypatch.setattr(simulator, "play", play)
    return settings


def test_an_episode_is_the_whole_task_and_the_seed_decides_it():
    setting = simulator.Setting("reacher_easy", 3, 20, TINY)
    found = simulator.play(setting)
    assert found["decisions"] == 50 and 0 <= found["return"] <= 1000 and found["seconds"] > 0
    assert simulator.play(setting)["return"] == found["return"]


def test_what_was_played_is_kept_and_the_rest_goes_on(tmp_path, played, capsys):
    assert run(simulator, "--tasks=cheetah_run,finger_spin", "--seeds=2", f"--folder={tmp_path}") == 0
    assert [(each.task, each.seed) for each in played] == [
        ("cheetah_run", 0), ("cheetah_run", 1), ("finger_spin", 0), ("finger_spin", 1)
    ]  # fmt: skip
    text = (tmp_path / "table.md").read_text()
    assert "| cheetah_run | 72 (-563 to 707) |  22, 122 |       671 |        5.00 |" in text
    assert run(simulator, "--tasks=finger_spin", "--seeds=3", f"--folder={tmp_path}") == 0
    assert len(played) == 5 and played[-1].seed == 2
    assert run(simulator, "--tasks=finger_spin", "--setting=planet", "--seeds=1", f"--folder={tmp_path}") == 0
    assert len(played) == 6 and played[-1].planner == CEMConfig() and played[-1].action_repeat == 2
    assert "|       825 |" in capsys.readouterr().out
    assert run(simulator, "--tasks=finger_spin", "--action=best", "--seeds=1", f"--folder={tmp_path}") == 0
    assert len(played) == 7 and played[-1].planner.action == "best"


def test_a_signal_ends_it_between_two_decisions(tmp_path, monkeypatch, played):
    def play(setting):
        played.append(setting)
        if len(played) == 2:
            signal.raise_signal(signal.SIGTERM)
            while not stop.asked():
                pass
            stop.check()
        return {"return": 1.0, "decisions": 1, "seconds": 1.0, "threads": 1}

    monkeypatch.setattr(simulator, "play", play)
    assert run(simulator, "--seeds=3", f"--folder={tmp_path}") == cli.GO_ON
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 1
    assert run(simulator, "--seeds=3", f"--folder={tmp_path}") == 0
    assert [each.seed for each in played] == [0, 1, 1, 2]


def test_the_sweep_plays_every_point_once_and_draws_them(tmp_path, played):
    assert run(planner_sweep, "--seeds=2", f"--folder={tmp_path}") == 0
    points = planner_sweep.all_points()
    assert len(played) == 2 * len(points) == 2 * len({str(each.planner) for each in played})
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    costs = [line["horizon"] * line["iterations"] * line["candidates"] for line in lines]
    assert costs == sorted(costs)
    assert {(12, 10, 64, 6), (12, 10, 128, 13), (8, 10, 128, 64)} <= {
        (x["horizon"], x["iterations"], x["candidates"], x["elites"]) for x in lines
    }
    assert "| 16      |         10 |        128 |             0.1 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert run(planner_sweep, "--seeds=2", f"--folder={tmp_path}") == 0 and len(played) == 2 * len(points)


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        (simulator, [], "give --folder=DIR"),
        (planner_sweep, [], "give --folder=DIR"),
        (simulator, ["--folder=x", "--tasks="], "--tasks=: give all, or at least one of "),
        (simulator, ["--folder=x", "--tasks=hopper_hop"], "unknown task 'hopper_hop'"),
        (planner_sweep, ["--folder=x", "--task=cheetah"], "unknown task 'cheetah'. Did you mean cheetah_run or"),
        (simulator, ["--folder=x", "--setting=paper"], "unknown --setting 'paper'"),
        (simulator, ["--folder=x", "--action=mode"], "unknown --action 'mode'"),
        (simulator, ["--folder=x", "--seeds=0"], "seeds"),
    ],
)
def test_refusals(module, args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(module, *args) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", [simulator, planner_sweep])
def test_episodes_are_not_written_into_a_run(module, capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert run(module, f"--folder={tmp_path}") == 2
    assert "is the working folder of a run" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


def test_a_half_written_episode_is_played_again_and_a_damaged_file_refused(tmp_path, played, capsys):
    assert run(simulator, "--seeds=2", f"--folder={tmp_path}") == 0
    place = tmp_path / "episodes.jsonl"
    whole = place.read_bytes()
    place.write_bytes(whole[:-9])
    assert run(simulator, "--seeds=2", f"--folder={tmp_path}") == 0 and len(played) == 3
    assert place.read_bytes() == whole
    place.write_bytes(whole[9:])
    assert run(simulator, "--seeds=2", f"--folder={tmp_path}") == 2
    assert f"{place} is damaged at line 1" in capsys.readouterr().err and place.read_bytes() == whole[9:]
