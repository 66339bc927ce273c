"""experiments.compare as a user runs it."""

import pytest

from tests import mains
from wmjax.report import plots
from wmjax.report.metrics import MetricsWriter


def compare(*flags):
    return mains.call("compare", *flags)


@pytest.fixture
def runs(tmp_path):
    """Two evaluated runs and one that is not evaluated yet."""
    for name, returns in dict(a=(1.0, 2.5), b=(3.0, 4.0), c=()).items():
        (tmp_path / name).mkdir()
        writer = MetricsWriter(tmp_path / name)
        writer.write({"env_steps": 5, "episodes": 1, "collect/return": 0.0})
        for i, value in enumerate(returns):
            writer.write({"env_steps": 10 * i + 10, "episodes": i + 2, "eval/return_mean": value})
        writer.close()
    return tmp_path


def test_draws_and_names_the_newest_evaluations(runs):
    picture = runs / "new" / "all.svg"
    ended = compare(f"--out={picture}", "--title=cup", f"--group=RSSM={runs}/a,{runs}/b", f"--group=SSM={runs}/c")
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        f"RSSM: {runs}/a: return 2.5 at 20 environment steps",
        f"RSSM: {runs}/b: return 4.0 at 20 environment steps",
        f"SSM: {runs}/c: not evaluated yet",
        f"picture: {picture}",
    ]
    assert "cup" in picture.read_text() and "RSSM (2 seeds)" in picture.read_text()


def test_one_task_of_an_agent_beside_an_agent_of_it_alone(runs, monkeypatch):
    """At equal episodes of it: after 40 steps in all the agent of two tasks has made 20 of its own."""
    (runs / "two").mkdir()
    writer = MetricsWriter(runs / "two")
    evaluations = {"eval/cup/return_mean": 3.0, "eval/walker/return_mean": 6.5}
    writer.write({"env_steps": 40, "episodes": 4, "eval/return_mean": 4.75} | evaluations)
    writer.close()
    drawn, groups = [], (f"--group=two={runs}/two", f"--group=alone={runs}/a")
    monkeypatch.setattr(plots, "comparison", lambda rows, *args: drawn.append(rows) or b"")
    ended = compare(f"--out={runs}/a.png", "--task=walker", *groups)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == f"two: {runs}/two: return 6.5 at 20 environment steps"
    assert drawn[0]["two"][0][0]["eval/return_mean"] == 6.5 and drawn[0]["two"][0][0]["env_steps"] == 20
    assert [row["env_steps"] for row in drawn[0]["alone"][0]] == [5, 10, 20]
    ended = compare(f"--out={runs}/a.png", "--task=cheetah", *groups)
    assert ended.code == 2 and ended.stderr == "error: task 'cheetah': the agent plays cup, walker\n"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--out=PICTURE.png"),
        (["--out=a.png"], "--group=NAME=DIR"),
        (["--out=a.png", "--group=RSSM"], "--group=RSSM: give NAME=DIR"),
        (["--out=a.png", "--group=RSSM=nowhere,"], "--group=RSSM=nowhere,: give NAME=DIR"),
        (["--out=a.png", "--group=RSSM=s3://runs/a"], "--group=s3://runs/a: s3://runs/a is not a path"),
        (["--out=a.png", "--group=RSSM=nowhere"], "nowhere has no metrics.jsonl"),
        (["--out=a.png", "--group=R=x", "--group=R=y"], "--group=R=y: there is a group R already"),
        (["--out=a.jpg", "--group=R=x"], "a.jpg must end in .png or .svg"),
    ],
)
def test_bad_input_is_one_line(flags, named):
    ended = compare(*flags)
    assert ended.code == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ") and named in ended.stderr


def test_a_picture_that_cannot_be_written(runs):
    ended = compare(f"--out={runs}/a/metrics.jsonl/all.png", f"--group=R={runs}/a")
    assert ended.code == 2
    assert ended.stderr.strip() == f"error: cannot write {runs}/a/metrics.jsonl/all.png: File exists"
