"""Published scores, human-normalised scores, and the table of games as a user runs it."""

import json

import pytest

from experiments.smaller_world_models import scores, table
from experiments.smaller_world_models.config import get_config
from tests import mains
from wmjax.envs import atari
from wmjax.report.metrics import MetricsWriter
from wmjax.run import lifecycle
from wmjax.run.members import make_members
from wmjax.storage import workdir


def make_run(folder, game, evaluations, frames=1, **changes):
    """What a run leaves after evaluations [members][iterations] of these mean returns."""
    config = get_config(f"{game},cpu")
    config.train.update(iterations=5, interactions=(4_000, 2_000))
    config.train.frames = frames
    config.update(changes, population=len(evaluations))
    chosen = make_members(config.task, config.seed, config.population)
    members = lifecycle.open_folders(folder, config.to_dict(), chosen)
    workdir.close_workdir(folder)
    for member, returns in zip(members, evaluations, strict=True):
        writer = MetricsWriter(member)
        writer.write({"env_steps": 9, "updates": 50, "train/elbo": 1.0})
        for i, value in enumerate(returns):
            writer.write({"env_steps": 10 * i, "iterations": i + 1, "eval/return_mean": value})
        writer.close()


def run_table(*flags):
    return mains.call("smaller_world_models.table", *flags)


def row_of(text, name):
    """The cells of the first line of a Markdown table that begins with a name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_pong_by_hand_under_both_tables_of_humans():
    found = scores.normalised(9.3, "Pong")
    assert found["Mnih 2015"] == pytest.approx(1)
    assert found["Wang 2016"] == pytest.approx((9.3 + 20.7) / (14.6 + 20.7))
    assert scores.normalised(-20.7, "Pong") == {"Mnih 2015": 0, "Wang 2016": 0}
    assert scores.normalised(1.0, "fake:counter") == {}


def test_published_numbers_are_whole():
    paper, wang = map(scores.published, scores.HUMANS.values())
    assert paper.keys() == wang.keys() <= atari.games().keys() and len(paper) == 36
    assert all(len(row) == 10 for row in paper.values())
    for game, row in paper.items():
        assert row["random"] == wang[game]["random"] < min(row["human"], wang[game]["human"])
        assert row["random"] != row["swm1_mean"] != row["swm4_mean"]
    assert sum(paper[game]["human"] == wang[game]["human"] for game in paper) == 10
    # Table 3's own column: the better of both variants as a percentage, rounded
    for game, percent in dict(
        Alien=2.9, Boxing=-69.0, Krull=241.3, Pong=108.3, PrivateEye=0.1, RoadRunner=21.9
    ).items():
        best = max(paper[game]["swm1_mean"], paper[game]["swm4_mean"])
        assert scores.normalised(best, game)["Mnih 2015"] == pytest.approx(percent / 100, abs=6e-4), game


def test_report_table():
    found = scores.report_table("atari:Pong", 9.3, 2.0)
    assert all(len(row) == len(found.header) for row in found.rows)
    cells = {row[0]: row[1:] for row in found.rows}
    assert cells["newest evaluation"] == ["9.3 ± 2.0", "100.0%", "85.0%"]
    assert cells["paper, 4 frames"] == ["11.8 ± 6.9", "108.3%", "92.1%"]
    assert cells["human of Wang 2016"] == ["14.6", "117.7%", "100.0%"]
    assert [row[0] for row in scores.report_table("fake:counter", 1.0, 0.0).rows] == ["newest evaluation"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Pong: three seeds, two of them a population, one unfinished; Boxing: one seed; four frames: one; others."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "pong", "Pong", [[-21, -20, -19, -18, 9.3], [-21, -21, -21, -21, -0.7]])
    make_run(folder / "more" / "pong2", "Pong", [[-21.0, -10.7]], seed=2)
    make_run(folder / "boxing", "Boxing", [[0, 0, 0, 0, 2.2]])
    make_run(folder / "more" / "four", "Pong", [[0, 0, 0, 0, 5.2]], frames=4)
    make_run(folder / "tennis", "Tennis", [[0, 0, 0, 0, -1.5]])
    make_run(folder / "new", "Alien", [[]])
    (folder / "planet").mkdir()
    (folder / "planet" / "config.json").write_text(json.dumps({"task": "cup", "model": {}, "train": {"chunk": 5}}))
    return folder


def test_references_are_of_the_same_number_of_frames():
    assert scores.references("atari:Pong", 1) == {"random": -20.7, "paper, 1 frame": -3.9}
    assert scores.references("atari:Pong", 4) == {"random": -20.7, "paper, 4 frames": 11.8}
    assert scores.references("atari:Pong", 2) == {"random": -20.7}
    assert scores.references("fake:counter", 1) == {}


def test_table_of_runs(runs, tmp_path):
    out = tmp_path / "deep" / "table.md"
    ended = run_table(f"--runs={runs},{runs}/pong/seed_0,{runs}/boxing", f"--out={out}")
    assert ended.code == 0, ended.stderr
    assert out.read_text() == ended.stdout
    one, four = ended.stdout.split("## 4 frames")
    one = one[one.index("## 1 frame") :]
    pong = row_of(one, "Pong")  # 9.3, -0.7 and -10.7: each 10 apart
    assert pong[1:9] == ["3 (1 unfinished)", "-0.7 ± 10.0", "66.7%", "56.7%", "-20.7", "9.3", "14.6", "-3.9 ± 7.6"]
    assert row_of(one, "Boxing")[1:5] == ["1", "2.2", "50.0%", "17.5%"]
    assert row_of(one, "Tennis")[1:] == ["1", "-1.5"] + [""] * 9
    assert "2 here; in brackets" in one and "Boxing, Tennis" in one and "The runs differ in" not in one
    ours = row_of(one, "ours")  # mean and median of 66.7% and 50%; of 33.3 50 66.7 100 the middle two
    assert [cell.split(" (")[0] for cell in ours[1:]] == ["58.3%", "58.3%", "58.3%"]
    assert row_of(one, "paper, 1 frame")[1:] == ["-83.9%", "-83.9%", ""]
    assert row_of(four, "Pong")[1:4] == ["1", "5.2", "86.3%"]
    assert row_of(four, "ours")[1] == "86.3%"  # one seed: no interval
    listed = four[four.index("## Runs") :]
    assert listed.count("\n* ") == 7 and "planet" not in listed
    assert (
        f"* {runs}/more/pong2: Pong, frames 1, seed 2; -10.7; unfinished: 2 of 5 iterations, 6,000 interactions"
        in listed
    )
    assert f"* {runs}/new: Alien, frames 1, seed 0; not evaluated yet" in listed


def test_other_settings_are_named(tmp_path):
    make_run(tmp_path / "a", "Pong", [[1.0]])
    make_run(tmp_path / "b", "Pong", [[1.0]], env=dict(size=96))
    assert "The runs differ in env.size." in table.page(table.find_runs(tmp_path))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "give --runs=DIR"),
        (["--runs=a,"], "--runs=a,: the path is empty"),
        (["--runs={runs}/nowhere"], "nowhere: there is no such folder"),
        (["--runs={runs}/planet"], "no run of this experiment there"),
        (["--runs={runs}/boxing,{runs}/planet"], "planet: no run of this experiment there"),
        (["--runs={runs}", "--out=table.csv"], "table.csv: must end in .md"),
        (["--runs={runs}", "--out={runs}/pong/config.json/table.md"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(runs, flags, named):
    ended = run_table(*(flag.format(runs=runs) for flag in flags))
    assert ended.code == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ") and named in ended.stderr
