"""The working folder, metrics, stopwatch and progress."""

import errno
import fcntl
import io
import json
import os
import platform
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from wmjax import console
from wmjax.report import metrics
from wmjax.report.progress import Progress, duration
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import files, workdir
from wmjax.types import UsageError

CONFIG = {"seed": 1, "task": "cup", "model": {"size": 200, "layers": (1, 2)}}


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "deep" / "run"
    workdir.close_workdir(tmp_path / "deep" / "run")


def test_the_same_config_resumes(folder):
    assert workdir.open_workdir(folder, CONFIG) is False
    assert workdir.open_workdir(folder, CONFIG) is True
    assert workdir.read_config(folder)["model"] == {"size": 200, "layers": [1, 2]}
    starts = workdir.read_starts(folder)
    assert len(starts) == 2 and {"jax", "flax", "python", "device", "cpu_count", "date", "command"} <= set(starts[0])
    assert starts[0]["processor"] in Path("/proc/cpuinfo").read_text() + platform.machine()


def test_another_config_is_refused_key_by_key(folder):
    workdir.open_workdir(folder, CONFIG)
    before = (folder / "config.json").read_bytes()
    other = {"seed": 2, "task": "cup", "model": {"size": 300, "layers": (1, 2)}, "more": None}
    with pytest.raises(UsageError) as caught:
        workdir.open_workdir(folder, other)
    message = str(caught.value)
    assert "model.size 200 -> 300, more (absent) -> None, seed 1 -> 2" in message and "choose another folder" in message
    assert "task" not in message and "\n" not in message
    assert (folder / "config.json").read_bytes() == before
    many = {f"key{i}": i for i in range(9)}
    with pytest.raises(UsageError, match="and 9 more"):
        workdir.open_workdir(folder, CONFIG | many | {"model": 1, "seed": 3})


def test_settings_that_change_nothing_done_may_differ(folder, capfd):
    free = ("train.episodes", "train.keep")
    config = CONFIG | {"train": {"episodes": 3, "keep": 2, "batch": 4}}
    longer = CONFIG | {"train": {"episodes": 5, "keep": 1, "batch": 4}}
    workdir.open_workdir(folder, config, free)
    for other in (longer | {"seed": 2}, CONFIG | {"train": {"episodes": 5, "keep": 2, "batch": 5}}):
        with pytest.raises(UsageError, match="another config: (seed 1 -> 2|train.batch 4 -> 5); choose"):
            workdir.open_workdir(folder, other, free)
    assert capfd.readouterr().err == "" and workdir.read_config(folder)["train"] == config["train"]
    assert workdir.open_workdir(folder, longer, free) is True
    assert capfd.readouterr().err == "resuming with other settings: train.episodes 3 -> 5, train.keep 2 -> 1\n"
    assert workdir.read_config(folder)["train"] == longer["train"]
    assert workdir.read_starts(folder)[-1]["changed_settings"] == ["train.episodes 3 -> 5", "train.keep 2 -> 1"]
    assert workdir.open_workdir(folder, longer, free) is True
    assert capfd.readouterr().err == "" and "changed_settings" not in workdir.read_starts(folder)[-1]
    with pytest.raises(UsageError, match="train.episodes 5 -> 3"):
        workdir.open_workdir(folder, config)


@pytest.mark.parametrize("text", ["", '{"seed": ', "[1]", 99999 * "["])
def test_a_damaged_config_is_refused(folder, text):
    workdir.open_workdir(folder, CONFIG)
    (folder / "config.json").write_text(text)
    with pytest.raises(UsageError, match="config.json is damaged"):
        workdir.open_workdir(folder, CONFIG)


def test_a_folder_with_other_files_is_refused_and_a_half_made_one_is_not(folder):
    folder.mkdir(parents=True)
    (folder / ".config.json.tmp").write_text("{")  # a kill during the very first write
    assert workdir.open_workdir(folder, CONFIG) is False
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match="versions.json.*but no config.json"):
        workdir.open_workdir(folder, CONFIG)


def test_a_path_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot use"):
        workdir.open_workdir(tmp_path / "file" / "run", CONFIG)
    with pytest.raises(UsageError, match="is not the working folder of a run"):
        workdir.read_config(tmp_path / "file")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        for refuse in (files.make_folder, files.check_place):
            with pytest.raises(UsageError, match=f"cannot write into {path}"):
                refuse(path)
    files.check_place(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_closed_to_this_user(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match=f"cannot write into {tmp_path}: Permission denied"):
        files.make_folder(tmp_path)
    with pytest.raises(UsageError, match=f"cannot write into {tmp_path}/a: {tmp_path}: Permission denied"):
        files.check_place(tmp_path / "a")


def test_a_refused_folder_stays_as_it_was(folder):
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    with pytest.raises(UsageError, match="notes.txt"):
        workdir.open_workdir(folder, CONFIG)
    (folder / "config.json").write_text('{"seed": 7}')
    with pytest.raises(UsageError, match="another config"):
        workdir.open_workdir(folder, CONFIG)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "notes.txt"]


def test_a_second_process_is_refused_and_a_killed_one_lets_go(folder):
    code = (
        "import sys, time; from wmjax.storage import workdir; "
        "workdir.open_workdir(sys.argv[1], {'seed': 1}); print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UsageError, match="another process is running"):
            workdir.open_workdir(folder, {"seed": 1})
        assert workdir.is_running_elsewhere(folder)
    finally:
        other.kill()
        other.wait()
    assert not workdir.is_running_elsewhere(folder)
    assert workdir.open_workdir(folder, {"seed": 1}) is True


def failing(function, code, only=lambda *args: True):
    """`function`, which the operating system refuses with an errno."""

    def call(*args):
        if only(*args):
            raise OSError(code, os.strerror(code))
        return function(*args)

    return call


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_a_warning(folder, code, monkeypatch, capfd):
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, code))
    assert workdir.open_workdir(folder, CONFIG) is False
    told = capfd.readouterr().err
    assert told == f"warning: no locks on the file system of {folder}: start one run there at a time\n"
    assert workdir.open_workdir(folder, CONFIG) is True and not workdir.is_running_elsewhere(folder)


def test_other_faults_of_a_lock_are_told(folder, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, errno.EIO))
    with pytest.raises(UsageError, match="cannot use .*Input/output error"):
        workdir.open_workdir(folder, CONFIG)


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_syncs_no_folders(tmp_path, code, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code, only=is_folder))
    files.atomic_write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code))  # of a file it counts
    with pytest.raises(OSError):
        files.atomic_write(tmp_path / "a", "newer")
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EIO, only=is_folder))
    with pytest.raises(OSError):
        files.atomic_write(tmp_path / "a", "newer")


def test_settings_that_change_numbers_are_versions_too(folder, monkeypatch, capfd):
    workdir.open_workdir(folder, CONFIG)
    starts = workdir.read_starts(folder)
    (folder / "versions.json").write_text(json.dumps([starts[0] | {"jax_default_prng_impl": "rbg"}]))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    workdir.open_workdir(folder, CONFIG)
    told = capfd.readouterr().err
    assert "jax_default_prng_impl rbg -> threefry2x32" in told and "fast_math=true" in told and told.count("\n") == 1
    old = {name: value for name, value in starts[0].items() if not name.startswith(("jax_", "XLA"))}
    (folder / "versions.json").write_text(json.dumps([old]))  # of a run from before they were kept
    workdir.open_workdir(folder, CONFIG)
    assert capfd.readouterr().err == ""


def test_a_processor_without_a_name_is_its_architecture(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "processor : 0\n")
    assert workdir.processor() == platform.machine()


def test_other_versions_are_told(folder, capfd):
    workdir.open_workdir(folder, CONFIG)
    starts = workdir.read_starts(folder)
    (folder / "versions.json").write_text(json.dumps([starts[0] | {"jax": "0.1"}]))
    workdir.open_workdir(folder, CONFIG)
    assert "other versions" in (told := capfd.readouterr().err) and "jax 0.1 -> " in told
    workdir.open_workdir(folder, CONFIG)
    assert capfd.readouterr().err == ""
    for damaged in ("3", "[1]", "{}", "x"):
        (folder / "versions.json").write_text(damaged)
        workdir.open_workdir(folder, CONFIG)
        assert len(workdir.read_starts(folder)) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    files.atomic_write(tmp_path / "a", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("broken")))
        with pytest.raises(OSError, match="broken"):
            files.atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_metrics_come_back(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write({"env_steps": np.int64(4), "train/loss": jnp.float32(0.5), "bad": float("nan"), "worse": -np.inf})
    writer.write({"env_steps": 8, "one": np.ones(1), "flag": True})
    writer.close()
    assert metrics.read_metrics(tmp_path) == [
        {"env_steps": 4, "train/loss": 0.5, "bad": None, "worse": None},
        {"env_steps": 8, "one": 1.0, "flag": 1},
    ]
    assert writer.offset == (tmp_path / "metrics.jsonl").stat().st_size
    assert metrics.read_metrics(tmp_path / "nowhere") == []


@pytest.mark.parametrize("value", [np.zeros(2), "text", None, 1j])
def test_a_metric_that_is_no_number_is_named(tmp_path, value):
    with pytest.raises(TypeError, match="metric train/loss"):
        metrics.MetricsWriter(tmp_path).write({"train/loss": value})


def test_a_resumed_file_has_each_line_once(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write({"env_steps": 0})
    writer.write({"env_steps": 1})
    offset = writer.offset
    writer.write({"env_steps": 2})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"env_steps": 3, "tra')  # a kill while writing
    assert [row["env_steps"] for row in metrics.read_metrics(tmp_path)] == [0, 1, 2]
    resumed = metrics.MetricsWriter(tmp_path, resume_at=offset)
    assert [row["env_steps"] for row in metrics.read_metrics(tmp_path)] == [0, 1]
    resumed.write({"env_steps": 2})
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    metrics.MetricsWriter(tmp_path)  # a run killed before its first checkpoint starts afresh
    assert metrics.read_metrics(tmp_path) == []


def test_lost_or_damaged_lines_are_told(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write({"env_steps": 1})
    with pytest.raises(UsageError, match="lines are lost"):
        metrics.MetricsWriter(tmp_path, resume_at=writer.offset + 1)
    for second in (b'{"a', b"[1]", b"3"):
        content = b'{"a": 1}\n' + second + b'\n{"a": 2}\n{"a": 3}\n'
        (tmp_path / "metrics.jsonl").write_bytes(content)
        with pytest.raises(UsageError, match="damaged at line 2"):
            metrics.read_metrics(tmp_path)
        with pytest.raises(UsageError, match="damaged at line 2"):
            metrics.MetricsWriter(tmp_path, resume_at=len(content) - 9)
        assert (tmp_path / "metrics.jsonl").read_bytes() == content  # nothing is cut off
    with pytest.raises(UsageError, match="was changed: no line ends at byte 5"):
        metrics.MetricsWriter(tmp_path, resume_at=5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def read_events(path):
    """Events of one TensorBoard file: records of length, checksum, bytes, checksum."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_tensorboard_has_the_numbers_at_once_and_a_resume_hides_older_ones(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write({"env_steps": 10, "train/loss": 0.5})
    offset = writer.offset
    writer.write({"env_steps": 20, "train/loss": 0.25})
    (first,) = (tmp_path / "tensorboard").iterdir()
    scalars = [
        (event.step, value.tag, value.simple_value) for event in read_events(first) for value in event.summary.value
    ]
    assert scalars == [(10, "train/loss", 0.5), (20, "train/loss", 0.25)]
    metrics.MetricsWriter(tmp_path, resume_at=offset).close()
    (second,) = set((tmp_path / "tensorboard").iterdir()) - {first}
    starts = [event for event in read_events(second) if event.HasField("session_log")]
    assert [event.step for event in starts] == [11]


def test_events_that_cannot_be_written_end_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "_failed", set())
    (tmp_path / "tensorboard").write_text("")
    writer = metrics.MetricsWriter(tmp_path)
    writer.write({"env_steps": 1})
    writer.close()
    (tmp_path / "tensorboard").unlink()
    writer = metrics.MetricsWriter(tmp_path, resume_at=writer.offset)
    monkeypatch.setattr(writer._events, "flush", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no room")))
    for step in (2, 3):
        writer.write({"env_steps": step})
    writer.close()
    assert [row["env_steps"] for row in metrics.read_metrics(tmp_path)] == [1, 2, 3]
    assert writer.offset == (tmp_path / "metrics.jsonl").stat().st_size
    assert capsys.readouterr().err.count("warning: ") == 2


def test_timers_add_up_and_reset():
    stopwatch = Stopwatch()
    for _ in range(2):
        with stopwatch("env"):
            time.sleep(0.02)
    with pytest.raises(KeyError), stopwatch("act"):
        raise KeyError
    flushed = stopwatch.flush()
    assert set(flushed) == {"time/env", "time/act"} and 0.04 <= flushed["time/env"] < 0.4
    assert stopwatch.flush() == {}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still: its seconds, [0], are set by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def show_two(stream, now, **limits):
    progress = Progress(10, stream=stream, **limits)
    now[0] += 60
    progress.show({"episodes": 5, "env_steps": 100, "updates": 10, "eval/return_mean": 33.3})
    now[0] += 60
    progress.show({"episodes": 6, "env_steps": 220, "updates": 130, "collect/return": 5.0, "train/loss": 0.123456})
    progress.close()
    return stream.getvalue()


def test_progress_is_one_line_an_iteration_in_a_file(now):
    first, second = show_two(io.StringIO(), now, done_minutes=1).splitlines()
    assert first == "episode 5/10  eval 33.3  2m00s gone"
    assert second.startswith("episode 6/10  return 5.0  eval 33.3  loss 0.1235  2 updates/s  2 env steps/s")
    assert second.endswith("3m00s gone  4m00s left")


def test_progress_stops_at_the_nearer_limit(now):
    text = show_two(io.StringIO(), now, minutes=2.5, done_minutes=60)
    assert text.splitlines()[1].endswith("1h02m gone  30s left")


def test_time_left_is_right_from_the_second_trained_episode_on(now):
    """Seed episodes of 2 s, a first trained one of 40 s that compiles, others of 9 s, 30 s more with an evaluation."""
    stream = io.StringIO()
    progress = Progress(100, stream=stream)
    durations = [2.0] * 5 + [40.0] + [9.0] * 94
    durations[19::20] = [39.0] * 5
    for i, seconds in enumerate(durations):
        now[0] += seconds
        progress.show({"episodes": i + 1, "updates": max(0, 100 * (i - 4))})
    lines = stream.getvalue().splitlines()
    assert not any("left" in line for line in lines[:6])
    for i in range(6, 99):
        minutes, _, seconds = lines[i].split()[-2].removesuffix("s").rpartition("m")
        left = 60 * int(minutes or 0) + int(seconds)
        assert left == pytest.approx(sum(durations[i + 1 :]), rel=1 / 3, abs=30), lines[i]


def test_minutes_keep_time_for_a_last_evaluation(now):
    progress = Progress(100, minutes=10.0, done_minutes=60.0, stream=io.StringIO())
    ends = {None: 480, 30.0: 570, 0.0: 600, 900.0: 0}
    for evaluation, end in ends.items():
        now[0] = 100.0 + end - 1
        assert progress.out_of_time(evaluation) == (end == 0)
        now[0] = 100.0 + end
        assert progress.out_of_time(evaluation)
    now[0] = 140.0
    assert Progress(100, minutes=1.0, stream=io.StringIO()).out_of_time(None) is False
    assert Progress(100, stream=io.StringIO()).out_of_time(1e9) is False
    progress = Progress(100, minutes=1.0, stream=io.StringIO())
    now[0] += 40
    assert progress.out_of_time(None)


def test_phases_show_their_quarters_in_a_file_and_all_on_a_terminal(now):
    quarters, all_parts = ([f"{share}%" for share in range(step, 101, step)] for step in (25, 5))
    for stream, wanted in ((io.StringIO(), quarters), (Terminal(), all_parts)):
        progress = Progress(3, stream=stream)
        for done in range(20):
            progress.phase("fitting", done + 1, 20)
        assert [text for text in stream.getvalue().split() if text.endswith("%")] == wanted


def test_progress_overwrites_its_line_on_a_terminal(now):
    text = show_two(Terminal(), now)
    assert text.count("\n") == 1 and text.count("\r\x1b[2K") == 2


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3599, 7260)] == ["0s", "1m00s", "59m59s", "2h01m"]
