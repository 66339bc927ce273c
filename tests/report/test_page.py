"""Videos, prediction strips, the report and the comparison picture."""

import html
import json
import re
import subprocess
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.figure import Figure

from wmjax import console
from wmjax.report import artifacts, metrics, plots, video
from wmjax.report import page as report_page
from wmjax.run import lifecycle
from wmjax.storage import workdir
from wmjax.types import UsageError


def moving_square(length=12, size=64):
    frames = np.full((length, size, size, 3), 90, np.uint8)
    for t in range(length):
        frames[t, 20:40, t : t + 10] = (250, 80, 10)
    return frames


def make_run(folder, config=None, rows=0, noise=0.0):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"task": "cup"}))
    writer = metrics.MetricsWriter(folder)
    for i in range(rows):
        row = {
            "env_steps": 100 * i,
            "updates": i,
            "episodes": i + 5,
            "collect/return": 1.0 * i,
            "train/loss": 1 / (1 + i),
            "train/kl": float("nan"),
            "time/env": 0.5,
            "time/act": 1.5,
            "time/total": 3.0,
        }
        writer.write(row | ({"eval/return_mean": 2.0 * i + noise, "eval/return_std": 0.5} if i % 3 == 0 else {}))
    writer.close()
    return folder


def test_a_video_reads_back_upscaled(tmp_path):
    path = video.write_video(tmp_path / "videos" / "a.mp4", moving_square(), fps=10)
    frames = iio.imread(path)
    assert frames.shape == (12, 256, 256, 3) and iio.immeta(path)["fps"] == 10
    expected = video.upscale(moving_square(), 4).astype(int)
    assert np.abs(frames.astype(int) - expected).mean() < 3
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_odd_and_grey_videos_are_padded_to_even_sides(tmp_path):
    path = video.write_video(tmp_path / "a.mp4", moving_square()[:, :33, :31, :1], fps=10, scale=1)
    assert iio.imread(path).shape == (12, 34, 32, 3)


def test_a_failed_video_says_why_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="ffmpeg says"):
        video.write_video(tmp_path / "a.mp4", moving_square(), fps=-1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="uint8"):
        video.write_video(tmp_path / "a.mp4", moving_square().astype(np.float32), fps=10)


@pytest.mark.parametrize("mode", [None, 0o644], ids=["missing", "not executable"])
def test_an_ffmpeg_that_does_not_run_is_told_at_the_start(tmp_path, monkeypatch, capsys, mode):
    monkeypatch.setattr(console, "_failed", set())
    console.try_drawing(video.check_ffmpeg)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    if mode:
        (tmp_path / "ffmpeg").write_text("")
        (tmp_path / "ffmpeg").chmod(mode)
    console.try_drawing(video.check_ffmpeg)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("warning: check_ffmpeg failed, the run goes on: ") and str(tmp_path / "ffmpeg") in said
    with pytest.raises(OSError, match="cannot write .*a.mp4.*ffmpeg"):
        video.write_video(tmp_path / "a.mp4", moving_square(), fps=10)
    assert not list(tmp_path.rglob(".*"))


def test_an_ffmpeg_that_hangs_is_ended(tmp_path, monkeypatch):
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\nexec sleep 60")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    monkeypatch.setattr(video, "HANGS", 0.1)
    with pytest.raises(OSError, match="no answer after 0.1 s"):
        video.write_video(tmp_path / "a.mp4", moving_square(), fps=10)


def test_a_relative_folder_is_no_protocol_of_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert video.write_video("w:1/-a.mp4", moving_square(2), fps=10).exists()


def test_a_video_on_a_full_disk(tmp_path, monkeypatch):
    def full(command, **_):
        Path(command[-1]).write_bytes(b"half")
        return subprocess.CompletedProcess(command, 1, b"", b"Error writing trailer: No space left on device")

    monkeypatch.setattr(subprocess, "run", full)
    with pytest.raises(UsageError, match="disk full: cannot write .*a.mp4"):
        video.write_video(tmp_path / "a.mp4", moving_square(), fps=10)
    assert list(tmp_path.iterdir()) == []


def test_times_of_a_row_and_minutes_so_far():
    rows = [{"time/env": 6.0, "time/act": 24.0, "time/total": 60.0}, {"loss": 1.0}, {"time/env": 30.0, "time/a": None}]
    assert plots.parts(rows[0]) == {"env": 6.0, "act": 24.0, "other": 30.0}
    assert plots.minutes(rows) == [1.0, 1.0, 1.5]


def test_tiles_stand_side_by_side():
    a, b = moving_square(3, 16), 255 - moving_square(3, 16)
    tiled = video.tile(np.stack([a, b]))
    assert tiled.shape == (3, 16, 32 + video.GAP, 3)
    np.testing.assert_array_equal(tiled[:, :, :16], a)
    np.testing.assert_array_equal(tiled[:, :, -16:], b)


def test_a_strip_has_truth_model_and_error_under_the_right_times():
    truth = moving_square(50)
    truth[:, 0, 0, 0] = np.arange(50)  # each frame carries its time
    prediction = truth + np.uint8(7)
    prediction[:5] = truth[:5]
    picture = video.strip(truth, prediction, context=5, every=5)
    pitch, marker = 64 + video.GAP, video.MARK + video.GAP
    assert picture.shape == (video.TOP + 3 * pitch - video.GAP, video.LEFT + 10 * pitch - video.GAP + marker, 3)
    for column in range(10):
        x = video.LEFT + column * pitch + (marker if column >= 1 else 0)
        cells = [picture[y : y + 64, x : x + 64] for y in video.TOP + pitch * np.arange(3)]
        np.testing.assert_array_equal(cells[0], truth[5 * column])
        np.testing.assert_array_equal(cells[1], prediction[5 * column])
        np.testing.assert_array_equal(cells[2], np.abs(prediction[5 * column].astype(int) - truth[5 * column]))
    mark = picture[video.TOP :, video.LEFT + pitch : video.LEFT + pitch + video.MARK]
    assert (mark == video.ORANGE).all()
    assert (picture == video.ORANGE).all(-1).sum() == mark[..., 0].size


def test_small_frames_are_drawn_larger_and_shapes_must_agree(tmp_path):
    frames = moving_square(4, 32)[..., :1]
    picture = video.strip(frames, frames, context=1, every=1)
    assert picture.shape[0] == video.TOP + 3 * 64 + 2 * video.GAP
    np.testing.assert_array_equal(iio.imread(video.write_png(tmp_path / "a.png", picture)), picture)
    with pytest.raises(ValueError, match="differ in shape"):
        video.strip(frames, frames[:2])


def outside_links(page):
    """Everything that a browser would load for this page but is not inside it."""
    found = re.findall(r"""(?:src|href|srcset|data|poster)\s*=\s*["']?([^"'>\s]*)""", page)
    found += re.findall(r"url\(\s*[\"']?([^)\"']*)", page)
    found = [link for link in found if not link.startswith(("data:", "#"))]
    return found + re.findall("<(?:script|link|iframe)|@import", page)


def test_a_full_report_is_whole_and_stands_alone(tmp_path):
    config = {"env": {"task": "cup_<b>&"}, "model": {"size": 200}, "evil": '"><script>alert(1)</script>'}
    folder = make_run(tmp_path / "run", config, rows=200)
    workdir.open_workdir(folder, config)
    workdir.close_workdir(folder)
    (folder / "summary.json").write_text('{"eval": {"return_mean": 12.5}}')
    codes = artifacts.Picture("codes_*.png", "Codes <of frames>", "their codes & what is drawn of them")
    artifacts.write_pictures(folder, [artifacts.open_loop_picture(5, 50), codes])
    for number in (7, 6):
        video.write_png(folder / "videos" / f"codes_{number}.png", moving_square()[0])
    for episode in (5, 10, 100):
        video.write_video(folder / "videos" / f"eval_{episode}.mp4", moving_square(), fps=10)
        strip = video.strip(moving_square(), moving_square() + np.uint8(episode))
        video.write_png(folder / "videos" / f"open_loop_{episode}.png", strip)
    start = time.process_time()
    page = report_page.write_report(folder).read_text()
    assert time.process_time() - start < 4  # about 1.5 s, most of it the import of matplotlib
    assert outside_links(page) == []
    assert "<script" not in page and "&lt;script&gt;" in page and "<h1>cup_&lt;b&gt;&amp;</h1>" in page
    for expected in (
        "newest evaluation return",
        "best of 67 evaluations",
        "396.0",
        "204",
        "10m00s",
        "train/loss",
        "model.size",
        "eval.return_mean",
        "12.5",
        "finished",
        "other",
        "33.3%",
        "newest: open loop 100",
        "newest: codes",
        "shown 5 frames",
        "imagines 45 more",
        "Codes &lt;of frames&gt;",
        "first: open loop 5",
        "jax",
    ):
        assert expected in page, expected
    assert page.index("eval 100<") < page.index("eval 10<") < page.index("eval 5<")
    assert page.count("<video") == 3 and page.count("<img") == 3 and "train/kl" not in page


def test_the_speed_of_a_run_is_that_of_its_training():
    rows = [{"env_steps": 1000 * i, "time/total": 5.0, "time/evaluate": 1.0, "time/act": 2.0} for i in (1, 2, 3)]
    assert "<b>250</b><span>environment steps a second</span>" in report_page._numbers(rows)
    assert "a second" not in report_page._numbers([{"updates": 3, "time/total": 5.0}])


def headline(folder):
    return re.search('<p class="about">(.*?)</p>', report_page.write_report(folder).read_text())[1]


@pytest.mark.parametrize(
    ("config", "summary", "said"),
    [
        ({"episodes": 100, "updates_per_episode": 7}, None, "14 of 100 episodes so far"),
        ({"episodes": 14}, None, "14 of 14 episodes so far"),
        ({"episodes": 14}, {"finished": True, "episodes": 14, "planned": {"episodes": 14}}, "finished"),
        (
            {"episodes": 100},
            {"finished": False, "episodes": 14},
            "stopped at 14 of 100 episodes; the same command goes on",
        ),
        (
            {"episodes": 100},
            {"finished": False, "episodes": 14, "planned": {"episodes": 2000}},
            "stopped at 14 of 2,000",
        ),
        ({"episodes": 100}, {"finished": False, "episodes": 11}, "14 of 100 episodes so far"),  # resumed since
        ({"updates": 9}, {"finished": True, "updates": 9, "planned": {"updates": 9}}, "finished"),
        ({"iterations": 3}, {"finished": False, "iterations": 0}, "stopped at 0 of 3 iterations; the same"),
        ({}, None, "not finished yet"),
    ],
)
def test_the_headline_says_how_far_the_run_is(tmp_path, config, summary, said):
    folder = make_run(tmp_path / "run", {"task": "cup", "train": config}, rows=10)
    if summary:
        artifacts.write_summary(folder, summary)
    assert said in headline(folder)
    assert "finished" in said or "finished" not in headline(folder)


def labels(svg):
    return [html.unescape(text.strip()) for text in re.findall("<text[^>]*>(.*?)</text>", svg, flags=re.DOTALL)]


def test_minutes_are_plain_numbers_and_steps_whole_ones():
    rows = [{"env_steps": i, "collect/return": 100.0 * i, "time/total": 10.0} for i in range(4)]
    in_minutes = labels(plots.returns(rows, plots.minutes(rows), "minutes"))
    assert "0.2" in in_minutes and "0.6" in in_minutes and not [text for text in in_minutes if text.endswith("m")]
    in_steps = labels(plots.returns(rows[:2], plots.env_steps(rows[:2]), "environment steps"))
    assert "1" in in_steps and not [text for text in in_steps if text.endswith("m") or "." in text]


def test_published_returns_are_lines(tmp_path):
    folder = make_run(tmp_path / "run", rows=4)
    assert "a famous paper" not in report_page.write_report(folder).read_text()
    lifecycle.write_references([folder], [{"a famous paper": 4321.0, "random <play>": 12.0}])
    page = report_page.write_report(folder).read_text()
    assert page.count("a famous paper") == 2 and page.count("random &lt;play&gt;") == 2  # over steps, over minutes
    assert "a famous paper" in report_page.write_population_report(folder, [folder]).read_text()
    lifecycle.write_references([folder, tmp_path], [{"a famous paper": 1.0}, {}])
    assert not (tmp_path / artifacts.REFERENCES).exists()


def limits(values, name="train/loss"):
    figure, axes = plots._figure()
    axes.plot(np.arange(len(values)), values)
    plots._fit_axis(axes)
    return axes, axes.get_ylim(), [text.get_text() for text in axes.texts]


def test_the_first_point_does_not_squash_a_loss():
    late = 5 + np.sin(np.arange(100))
    _, (low, high), texts = limits(np.concatenate([[5000.0, 70.0], late]))
    assert 3 < low < 4 and 6 < high < 7 and texts == ["some points up to 5e+03"]
    _, (low, high), texts = limits(np.concatenate([[-300.0], late]))
    assert 3 < low < 4 and 6 < high < 7 and texts == ["some points down to -300"]
    _, (low, high), texts = limits(np.concatenate([[8.0], late]))
    assert low < 4 and high > 8 and texts == []
    for few in ([5.0], [500.0, 1.0], np.zeros(100), [np.inf] * 0):
        assert limits(few)[2] == []


def test_a_loss_is_logarithmic_where_it_is_positive_and_wide_after_its_beginning():
    assert limits(np.geomspace(1000, 1, 100))[0].get_yscale() == "log"
    assert limits(np.geomspace(1000, 1, 100) - 1.5)[0].get_yscale() == "linear"
    assert limits(np.concatenate([[1000.0], 5 + np.sin(np.arange(100))]))[0].get_yscale() == "linear"


def test_pages_can_be_read_in_the_dark(tmp_path):
    page = report_page.write_report(make_run(tmp_path / "run", rows=9)).read_text()
    assert "color-scheme: light dark" in page and "prefers-color-scheme: dark" in page
    drawn = "".join(re.findall("<svg.*?</svg>", page, flags=re.DOTALL))
    assert "currentColor" in drawn and "var(--line)" in drawn
    assert "#000000" not in drawn and "#e4e4e4" not in drawn


def test_a_folder_with_a_name_in_no_encoding(tmp_path):
    folder = make_run(tmp_path / "run_\udcff", {"seed": 1}, rows=1)
    assert "run_\\udcff" in report_page.write_report(folder).read_text()


def test_an_empty_run_has_a_report(tmp_path):
    page = report_page.write_report(make_run(tmp_path / "run_a")).read_text()
    assert "No metrics yet" in page and outside_links(page) == []
    page = report_page.write_report(make_run(tmp_path / "run_b", {"seed": 1}, rows=1)).read_text()
    assert "<h1>run_b</h1>" in page and "<video" not in page
    (tmp_path / "run_b" / "metrics.jsonl").write_text('{"train/loss": null}\n{"env_steps": 3}\n')
    assert "<svg" not in report_page.write_report(tmp_path / "run_b").read_text()
    with pytest.raises(UsageError, match="not the working folder of a run"):
        report_page.write_report(tmp_path)


def test_a_page_that_cannot_be_written(tmp_path):
    make_run(tmp_path / "a")
    (tmp_path / "a" / report_page.REPORT / "held").mkdir(parents=True)
    with pytest.raises(UsageError, match="^cannot write .*report.html: Is a directory$"):
        report_page.write_report(tmp_path / "a")


def test_pages_and_summaries_that_cannot_be_written_end_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "_failed", set())
    for place in (make_run(tmp_path / "a", rows=1), make_run(tmp_path / "b", rows=1)):
        for name in (report_page.REPORT, artifacts.SUMMARY):
            (place / name / "held").mkdir(parents=True)
    lifecycle.write_summaries(tmp_path / "a", [tmp_path / "a"], {}, ("episodes",))
    assert lifecycle.write_reports(tmp_path / "a", [tmp_path / "a"]) is None
    assert lifecycle.write_reports(tmp_path / "a", [tmp_path / "a", tmp_path / "b"]) is None
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in said] == ["write_summary", "write_report", "write_population_report"]


def test_only_so_many_bytes_of_video_are_embedded(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    for episode in range(4):
        path = video.write_video(folder / "videos" / f"eval_{episode}.mp4", moving_square(), fps=10)
    monkeypatch.setattr(report_page, "EMBED_BYTES", int(path.stat().st_size * 2.5))
    page = report_page.write_report(folder).read_text()
    assert page.count("<video") == 2 and "eval 3<" in page and "eval 2<" in page and "2 more in videos/" in page


def test_panels_that_do_not_fill_their_grid(monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, content, **_: drawn.append(figure))
    plots.panels({f"q{i}": dict(a=[1, 0], b=[1, -1]) for i in range(8)}, "steps", "R2", (-1, 1))
    titles = [axes.get_title() for axes in drawn[0].axes if axes.get_visible()]
    assert titles == [f"q{i}" for i in range(8)] and len(drawn[0].axes) == 12
    assert all(len(axes.lines) == 2 for axes in drawn[0].axes[:8])


def test_a_comparison_of_seeds_with_different_lengths(tmp_path):
    seeds = [make_run(tmp_path / f"s{i}", rows=10 + 5 * i, noise=float(i)) for i in range(3)]
    path = report_page.write_comparison(tmp_path / "a.png", {"planet": seeds, "one": seeds[:1]}, "cup")
    assert iio.imread(path).shape[:2] == (600, 1050)
    text = report_page.write_comparison(tmp_path / "a.svg", {"planet": seeds}, "cup").read_text()
    assert "<svg" in text
    with pytest.raises(UsageError, match="has no metrics.jsonl"):
        report_page.write_comparison(tmp_path / "a.png", {"planet": [tmp_path / "nowhere"]}, "cup")
    with pytest.raises(UsageError, match="must end in"):
        report_page.write_comparison(tmp_path / "a.jpg", {"planet": seeds}, "cup")


def test_a_written_table_is_shown(tmp_path):
    folder = make_run(tmp_path / "run", rows=1)
    assert "<h2>Scores" not in report_page.write_report(folder).read_text()
    table = artifacts.Table("Scores", ["", "return"], [["newest", "3.5"], ["<best>", "9.0"]], "over episodes")
    artifacts.write_table(folder, table)
    page = report_page.write_report(folder).read_text()
    assert "<h2>Scores</h2>" in page and "over episodes" in page
    assert '<td>newest</td><td class="n">3.5</td>' in page and "&lt;best&gt;" in page
    (folder / artifacts.TABLE).write_text("{")
    assert "<h2>Scores" not in report_page.write_report(folder).read_text()
