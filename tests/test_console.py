"""Nothing that a run says, and no picture that it draws, may end it."""

import ast
import io
import os
import pathlib
import pty
import subprocess
import sys

import pytest

from wmjax import console
from wmjax.report.progress import Progress

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = ("planet", "smaller_world_models", "environment_models")


@pytest.fixture(params=["full disk", "broken pipe", "closed terminal", "closed"])
def gone(request):
    """A text stream that cannot be written to any more."""
    if request.param == "full disk":
        stream = open("/dev/full", "w")
    elif request.param == "broken pipe":
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    elif request.param == "closed terminal":
        first, second = pty.openpty()
        os.close(first)
        stream = os.fdopen(second, "w")
    else:
        stream = open(os.devnull, "w")
        stream.close()
    with pytest.raises((OSError, ValueError)):
        stream.write("it fails without more ado\n")
        stream.flush()
    return stream


def test_lines_go_where_they_belong(capsys):
    console.say("one")
    console.warn("two")
    assert capsys.readouterr() == ("one\n", "two\n")


def test_a_warning_does_not_stand_behind_the_progress(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    Progress(10, stream=terminal).show({"episodes": 5})
    console.warn("a warning")
    assert terminal.getvalue().endswith("\r\x1b[2Ka warning\n")


def test_a_stream_that_is_gone_stays_quiet(gone, monkeypatch, capsys):
    was_open = not gone.closed
    monkeypatch.setattr(sys, "stdout", gone)
    console.say("one")
    console.say("two")
    if was_open:
        print("what others print goes nowhere too")
        gone.close()  # writes what is left in its buffer, as Python does when it ends
    assert capsys.readouterr().err.count("standard output cannot be written") == was_open


def test_nothing_is_said_about_standard_error_itself(gone, monkeypatch):
    monkeypatch.setattr(sys, "stderr", gone)
    console.warn("one")
    console.warn("two")


def test_a_process_without_standard_output_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    console.say("one")
    Progress(10).note("two")


def test_letters_that_an_encoding_lacks_are_spelt():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console.write(stream, "ä·\udcff\n")
    assert stream.buffer.getvalue() == b"\\xe4\\xb7\\udcff\n"


def test_progress_goes_on_without_its_stream(gone):
    progress = Progress(10, stream=gone)
    for episodes in (1, 2):
        progress.show({"episodes": episodes})
        progress.note("a note")
    progress.close()
    gone.close()


TALKER = """
import sys
from wmjax import console
console.prepare_streams()
print("left in the buffer")
for _ in range(int(sys.argv[1])):
    console.say("x" * 1000)
    console.warn("y" * 1000)
"""


@pytest.mark.parametrize(
    ("redirected", "lines"),
    [("| head -1", 100), ("> /dev/full", 100), ("> /dev/full", 0), ("> /dev/full 2>&1", 100), (">&- 2>&-", 100)],
)
def test_the_exit_code_is_that_of_the_work(redirected, lines):
    """A flush that fails as Python ends makes 120 of its exit code 0."""
    command = f'set -o pipefail; "$0" -c "$1" {lines} {redirected}'
    words = ["bash", "-c", command, sys.executable, TALKER]
    settings = os.environ | {"PYTHONUNBUFFERED": ""}
    ended = subprocess.run(words, cwd=ROOT, env=settings, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr


def test_closed_descriptors_are_not_taken_by_files():
    """Else a library that prints would print into a run's metrics."""
    program = "from wmjax import console; console.prepare_streams(); sys = __import__('sys'); f = open('/dev/null')\n"
    program += "sys.exit(f.fileno() < 3)"
    ended = subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], cwd=ROOT, timeout=60)
    assert ended.returncode == 0


def test_a_drawing_that_fails_is_one_warning_a_kind(capsys, monkeypatch):
    monkeypatch.setattr(console, "_failed", set())

    def write_page(error):
        raise error

    assert console.try_drawing(str, 3) == "3"
    for error in (OSError("no room\nat all"), OSError("again"), RuntimeError("of another kind")):
        assert console.try_drawing(write_page, error) is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "write_page" in said[0] and "no room at all" in said[0] and "another kind" in said[1]
    with pytest.raises(KeyboardInterrupt):
        console.try_drawing(write_page, KeyboardInterrupt())


DRAWN = ("write_video", "write_png", "write_film", "write_strip", "write_report", "write_population_report")
DRAWN += ("write_table", "write_summary", "write_references", "write_predictions")
TRAINING = (
    "wmjax/run/lifecycle.py",
    "experiments/planet/offline.py",
    *(f"experiments/{x}/{y}.py" for x in EXPERIMENTS for y in ("__main__", "predictions")),
)


def test_training_draws_by_trying():
    for path in TRAINING:
        calls = [node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Call)]
        direct = [f"{path}:{call.lineno}" for call in calls if getattr(call.func, "id", None) in DRAWN]
        assert not direct, "a drawing that fails would end the run: use console.try_drawing"


def test_all_lines_go_through_one_place():
    found = []
    for path in (p for top in ("wmjax", "experiments", "launch") for p in (ROOT / top).rglob("*.py")):
        if path.name != "console.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, "print can end a run: use wmjax.console"
