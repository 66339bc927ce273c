"""The doctor: what it says of a machine, and that each fault has one thing to type."""

import re
import subprocess
import sys

import pytest

from tests import mains
from wmjax import doctor, memory
from wmjax.doctor import Needs, Point
from wmjax.envs import gl
from wmjax.report import video
from wmjax.run import cli
from wmjax.types import UsageError

NVIDIA = [("NVIDIA H200", "550.54")]
FOUND = dict(jax="1.0", mujoco="3.17.0")


def told(points, capsys):
    """(exit code, lines) of `doctor.tell`."""
    code = 0
    try:
        doctor.tell(points)
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().out.splitlines()


def test_a_fault_is_followed_by_what_to_type_and_code_1(capsys):
    assert told([Point("a", "there")], capsys) == (0, ["ok   a: there", "all is ok"])
    faults = [Point("a", "there"), Point("b", "gone", "make b")]
    assert told(faults, capsys) == (1, ["ok   a: there", "mend b: gone", "     type: make b", "to be mended: 1"])


def test_python_and_packages():
    assert not doctor.python((3, 11, 0)).mend and not doctor.python((3, 12, 1)).mend
    assert doctor.python((3, 10, 9)).mend == "make setup PYTHON=python3.11"
    assert doctor.packages(FOUND, FOUND, True) == Point("packages", "jax 1.0, mujoco 3.17.0; as locked")
    other = doctor.packages(FOUND | dict(mujoco="4.0.0"), FOUND, True)
    assert other == Point("packages", "mujoco 4.0.0 where 3.17.0 is locked", "rm -f .venv/installed && make setup")
    missing = doctor.packages(FOUND | dict(jax=None), FOUND, False)
    assert missing == Point("packages", "jax missing", "make setup && .venv/bin/python -m wmjax.doctor")
    assert doctor.packages(dict(jax=None), {}, False).mend.endswith("-m pip install jax")


def test_the_locks_hold_every_package():
    for lock in (mains.ROOT / "launch/install/locks").glob("*.txt"):
        locked = doctor.read_lock(lock.read_text())
        assert set(locked) == set(doctor.PACKAGES) and locked["mujoco"] < "4"


@pytest.mark.parametrize(
    ("seen", "nvidia", "tpus", "environment", "mend"),
    [
        ("cpu", [], 0, {}, ""),
        ("NVIDIA H200", NVIDIA, 0, {"JAX_PLATFORMS": "cuda"}, ""),
        ("TPU v4", [], 4, {}, ""),
        ("cpu", NVIDIA, 0, {}, "rm -f .venv/installed && make setup ACCELERATOR=cuda12"),
        ("cpu", NVIDIA, 0, {"JAX_PLATFORMS": "cpu"}, "unset JAX_PLATFORMS"),
        ("cpu", NVIDIA, 0, {"CUDA_VISIBLE_DEVICES": ""}, "unset CUDA_VISIBLE_DEVICES"),
        ("cpu", [("NVIDIA A100", "470.1")], 0, {}, "sudo apt install nvidia-driver-525"),
        ("cpu", [], 4, {}, f".venv/bin/python -m pip install 'jax[tpu]=={doctor.version('jax')}'"),
    ],
)
def test_devices_that_jax_does_not_see(seen, nvidia, tpus, environment, mend):
    assert doctor.compared_devices([seen], nvidia, tpus, environment).mend == mend


def test_nvidia_smi_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.gpus() == []
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 550.54'\necho 'NVIDIA H200, 550.54'\n")
    smi.chmod(0o755)
    assert doctor.gpus() == NVIDIA * 2
    smi.write_text("#!/bin/sh\necho 'No devices, were found'\nexit 6\n")
    assert doctor.gpus() == []


@pytest.mark.parametrize(
    ("total", "environment", "left", "mend"),
    [
        (80, {}, "jax takes 75% of 80.0 GB at once, .* is not set; 20.0 GB are left", ""),
        (80, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}, "45% of 80.0 GB at once, .* is 0.45; 44.0 GB", ""),
        (80, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, "up to 75% of 80.0 GB, ", ""),
        (80, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".99"}, "0.8 GB are left .* about 1 GB", "0.75"),
        (3, {}, "0.8 GB are left", "0.66"),
        (80, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "half"}, "half is no number", "0.75"),
    ],
)
def test_jax_and_egl_on_one_card(total, environment, left, mend):
    point = doctor.jax_beside_egl(total, 0.5, environment)
    assert re.search(left, point.result)
    assert point.mend == (f"export XLA_PYTHON_CLIENT_MEM_FRACTION={mend}" if mend else "")


def test_the_first_cards_memory_is_read(monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_smi", lambda query: [["81920", "512"], ["100", "0"]])
    (point,) = doctor.shared_card()
    assert "of 85.9 GB" in point.result and "0.5 GB in use" in point.result
    monkeypatch.setattr(doctor, "nvidia_smi", lambda query: [["[N/A]", "[N/A]"]])
    assert not list(doctor.shared_card())


def test_tpus_are_counted(tmp_path):
    for i, (vendor, chip) in enumerate([("0x1ae0", "0x0063"), ("0x1ae0", "0x0042"), ("0x8086", "0x0063")]):
        place = tmp_path / str(i)
        place.mkdir()
        for name, text in (("vendor", vendor), ("device", chip)):
            (place / name).write_text(f"{text}\n")
    assert doctor.tpu_chips(tmp_path) == 1


def test_what_cannot_be_drawn_or_played(monkeypatch):
    monkeypatch.setattr(gl, "fault_of", {gl.DRAW: "", doctor.DM_CONTROL: "no EGL", doctor.GAME: "no ROM"}.get)
    monkeypatch.setattr(video, "check_ffmpeg", lambda: None)
    frame, pair, game, encoded = doctor.drawing()
    assert not frame.mend and not encoded.mend
    assert pair.result == "no EGL" and pair.mend.endswith("--force-reinstall --no-deps 'mujoco<4' dm_control")
    assert game.result == "no ROM" and f"envpool=={doctor.version('envpool')}" in game.mend


def test_where_nothing_can_be_drawn_one_thing_is_to_be_typed(monkeypatch):
    monkeypatch.setattr(gl, "fault_of", {gl.DRAW: "no EGL", doctor.GAME: ""}.get)
    monkeypatch.setattr(video, "check_ffmpeg", lambda: None)
    assert [point.mend for point in doctor.drawing()] == [f"sudo apt install {gl.DEBIAN}", "", "", ""]


def test_memory_is_the_hosts_where_jax_has_no_device(monkeypatch):
    def no_device():
        raise AssertionError

    monkeypatch.setattr(memory, "free_memory", no_device)
    monkeypatch.setattr(memory, "host_memory", lambda: 2 * 10**9)
    assert next(doctor.room(None)) == Point("memory", "2.0 GB free")


def test_a_program_that_dies_is_a_fault_in_its_last_words():
    assert gl.fault_of("import os; print('oh', flush=True); os._exit(0)") == "oh"
    assert gl.fault_of("import os; os._exit(7)") == "exit code 7"


def test_room_beside_what_a_run_needs(tmp_path):
    place = str(tmp_path / "not" / "there")
    assert not any(point.mend for point in doctor.room(place))
    ring, disk = doctor.room(place, Needs(memory=10**15, disk=10**18, smaller="--a=1"))
    assert ring.mend == "--a=1" and "the run takes 1000000.0 GB" in ring.result
    assert disk.mend.startswith("--workdir=") and str(tmp_path) in disk.name and "not" not in disk.name
    assert not doctor.enough("memory", None, 5, "--a=1").mend


def test_a_config_without_a_doctor_is_refused():
    for place in ("experiments/benchmark/config.py:Pong,cpu", "../config.py:a", ""):
        with pytest.raises(UsageError, match="no doctor.py beside it"):
            doctor.doctor_beside(place)


def test_the_doctor_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for config in ("planet/config.py:fake:counter,cpu", "trade_offs/config.py:fake:counter,r,cpu"):  # PlaNet's main
        main = doctor.doctor_beside(f"{mains.ROOT}/experiments/{config}")
        assert main.__module__ == "experiments.planet.doctor"


def test_it_says_what_is_missing_before_it_imports_it():
    """A Python without site-packages, as a system's own is: -S."""
    command = [sys.executable, "-S", "-m", "wmjax.doctor"]
    ended = subprocess.run(command, cwd=mains.ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr == "", ended.stderr
    assert "mend packages: jax, jaxlib, flax," in ended.stdout and "type: make setup" in ended.stdout


@pytest.mark.slow
def test_this_machine_is_ok(capsys):
    assert cli.run(doctor.main, ["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all is ok"


def test_help_and_unknown_flags(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(doctor.main, ["doctor", "--help"])
    page = capsys.readouterr().out
    assert ended.value.code == 0 and page.startswith(doctor.__doc__.strip())
    assert "\n  --config\n" in page and "\n  --workdir\n" in page
    assert cli.run(doctor.main, ["doctor", "--nonsense"]) == 2


def test_a_config_is_handed_to_the_doctor_beside_it(capsys):
    place = "experiments/planet/config.py:fake:counter,cpu"
    assert cli.run(doctor.main, ["doctor", f"--config={place}", "--config.train.batches=3"]) == 2
    assert "config.train.batches does not exist" in capsys.readouterr().err
