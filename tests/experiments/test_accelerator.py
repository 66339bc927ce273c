"""The accelerator report: its rows, its page, what it says where something fails, and that it needs few packages."""

import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import (
    __main__ as main,
)
from experiments.benchmark import (
    accelerator,
    agents,
    device,
    dream,
    equality,
    learning,
    planner,
    profile,
    rollout,
    rows,
    train,
)
from tests import mains
from wmjax import backend, doctor
from wmjax.report.benchmark import Finding, Work
from wmjax.run import unroll
from wmjax.types import ActionSpec, EnvSpec, JaxEnv, Step

ABSENT = "envpool dm_control mujoco gymnasium distrax tensorflow_probability matplotlib PIL imageio_ffmpeg tensorboardX"
WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT.split()}))  # importing one says that it is not there
runpy.run_module("experiments.benchmark", run_name="__main__", alter_sys=True)
"""


def fake(*works):
    """A part of the benchmark with these works; an exception among them is raised when its turn comes."""

    def each(preset):
        for work in works:
            if isinstance(work, Exception):
                raise work
            yield work

    return SimpleNamespace(works=each, __doc__="What it is.\nMore.")


def run(monkeypatch, folder, parts, *flags):
    """(how the command ended, JSON, page) with these parts in place of the preset's."""
    monkeypatch.setitem(main.PARTS_OF, "accelerator", parts)
    places = f"--json={folder}/a.json", f"--page={folder}/a.html"
    ended = mains.call("benchmark.__main__", "--preset=accelerator", "--dry", *places, *flags)
    return ended, json.loads((folder / "a.json").read_text()), (folder / "a.html").read_text()


def test_a_row_that_fails_says_why_and_the_rest_goes_on(monkeypatch, tmp_path):
    def out_of_memory():
        raise RuntimeError("RESOURCE_EXHAUSTED:\n  out of <memory>")

    def missing():
        import no_such_package

        return no_such_package

    works = [Work("good", lambda: jnp.zeros(2), {"things": 2}), Finding("big", out_of_memory), Finding("lean", missing)]
    parts = dict(one=fake(*works, ValueError("no")), two=fake(Finding("last", lambda: dict(told="here"))))
    ended, written, shown = run(monkeypatch, tmp_path, parts)
    assert ended.code == 1 and ended.stderr == ""
    assert ended.stdout.splitlines()[-1] == "2 ok, 3 failed, 0 left out"
    found = {row["name"]: row.get("failed") for row in written["rows"]}
    failed = dict(big="RuntimeError: RESOURCE_EXHAUSTED: out of <memory>", lean="no_such_package is not installed")
    assert found == dict(good=None, last=None) | failed | {"all that would follow": "ValueError: no"}
    assert written["finished"] and all(f"<h2>{part}</h2>" in shown for part in parts)
    assert shown.count("out of &lt;memory&gt;") == 2 and shown.count("What it is.") == 2 and "dry run" in shown


def test_what_no_longer_fits_is_listed(monkeypatch, tmp_path):
    clock = iter(range(0, 10**6, 20))  # every look at it is 20 seconds later
    monkeypatch.setattr(rows, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    parts = dict(one=fake(*(Finding(str(i), lambda: dict(told="")) for i in range(4))))
    ended, written, shown = run(monkeypatch, tmp_path, parts, "--minutes=1")
    assert ended.code == 0 and ended.stdout.splitlines()[-1] == "2 ok, 0 failed, 2 left out"
    assert [rows.outcome(row) for row in written["rows"]] == ["ok", "ok", "left out", "left out"]
    assert shown.count("left out: 0.9 of --minutes=1 were gone") == 2


def test_goals_are_reached_or_missed_on_a_gpu_alone():
    slow, fast = (dict(part="planner", name="rssm, 16 envs", ms=16 * each) for each in (0.5, 0.3))
    eight = dict(part="population", name="8 members, 50 x 50", ms=30.0)
    one = dict(part="population", name="1 member, 50 x 50", ms=16.0, members=1)
    assert accelerator.verdict(accelerator.with_goal(slow, [], False)).endswith("(a goal for GPUs)")
    with backend.as_on("gpu"):
        told = [accelerator.verdict(accelerator.with_goal(row, [one], False)) for row in (slow, fast, eight, one)]
        assert told == [f"under 0.4 ms an environment: {word}" for word in ("missed", "reached")] + [
            "under twice one: reached",
            "",
        ]
        assert accelerator.verdict(accelerator.with_goal(eight, [], False)) == "under twice one: cannot be told"
        assert accelerator.verdict(accelerator.with_goal(fast, [], True)).endswith("(a goal for GPUs)")
        assert "reached" not in accelerator.with_goal(dict(part="planner", name="rssm, 1 env", failed="no"), [], False)


def test_every_part_has_the_same_rows_in_a_dry_run():
    assert set(accelerator.PARTS) == set(main.ACCELERATOR) == set(main.PARTS_OF["accelerator"])
    for sizes in (planner.SIZES, train.SIZES, rollout.SIZES, rollout.MAPS):
        assert len(sizes["dry"]) == len(sizes["accelerator"])
    named = [goal for goal in accelerator.GOALS if goal.part == "train"]
    assert all(any(work.name.startswith(goal.names) for work in train.works("dry")) for goal in named)


@pytest.mark.parametrize("part, first, last", [(dream, 0, 3), (rollout, -1, None)])
def test_programs_of_a_dry_run_are_made(part, first, last):
    """Running all of them: test_a_dry_run_shows_every_row. Those of planner: test_it_needs_few_packages."""
    works = list(part.works("dry"))
    assert len({work.name for work in works}) == len(works)
    for work in works[first:last]:
        work.prepare()
        assert work.gflop() > 0


def test_it_needs_few_packages(tmp_path):
    """Whole parts in a process without the others: what needs distrax says so, and the page has no chart."""
    words = ["--preset=accelerator", "--dry", "--only=device,planner,profile,memory", f"--page={tmp_path}/a.html"]
    command = [sys.executable, "-c", WITHOUT, *words]
    ended = subprocess.run(command, cwd=mains.ROOT, capture_output=True, text=True, timeout=mains.HANGS)
    assert ended.returncode == 1 and ended.stderr == "", ended.stderr
    assert ended.stdout.splitlines()[-1] == "10 ok, 1 failed, 0 left out"
    shown = (tmp_path / "a.html").read_text()
    assert "distrax is not installed" in shown and "matplotlib is not installed" in shown
    assert all(f"<h2>{part}</h2>" in shown for part in ("device", "planner", "profile", "memory"))
    assert "rssm, 64 envs" in shown and "share without a kernel" in shown


@pytest.mark.slow
def test_a_dry_run_shows_every_row(tmp_path):
    places = f"--json={tmp_path}/a.json", f"--page={tmp_path}/a.html"
    ended = mains.call("benchmark.__main__", "--preset=accelerator", "--dry", "--minutes=60", *places)
    assert ended.code == 0, ended.stdout
    written, shown = json.loads((tmp_path / "a.json").read_text()), (tmp_path / "a.html").read_text()
    assert list(dict.fromkeys(row["part"] for row in written["rows"])) == accelerator.PARTS
    assert all(row["name"] in shown for row in written["rows"]) and "<svg" in shown
    assert [row["name"] for row in written["rows"] if "goal" in row] == [
        "rssm, 1 env",
        "rssm, 16 envs",
        "update, 2 x 3",
        "update, 2 x 3, bfloat16",
        "8 members, 2 x 3",
    ]


# -- losses on the CPU and on the device


def make_case(wrong=0.0):
    """A Case with sums of products, which differ by `wrong` of them where the platform is another."""

    def both(state, key, batch):
        loss = jnp.sum(state @ batch) + jax.random.normal(key)
        return loss * (1.0 if backend.is_cpu() else 1.0 + wrong), jnp.float32(2.0)

    return both, np.ones((3, 4), np.float32), np.ones((4, 2), np.float32)


def compare(wrong, precision):
    case = lambda: make_case(wrong)
    return equality.compared(case, lambda: equality.numbers_on_cpu(case), precision)


def test_losses_of_two_platforms_are_compared():
    expected = 24 + float(jax.random.normal(jax.random.key(1)))
    here = compare(0.0, "highest")
    assert here["cpu_loss"] == pytest.approx(expected) and here["told"].startswith("nothing to compare")
    assert "loss" not in here and "failed" not in here
    with backend.as_on("gpu"):
        equal, off, gone = compare(0.0, "highest"), compare(2e-3, "highest"), compare(float("nan"), "default")
        loose = compare(2e-3, "default")
    assert equal["loss"] == equal["cpu_loss"] and "failed" not in equal and "failed" not in loose
    assert off["loss_difference"] == pytest.approx(2e-3, rel=1e-2) and off["loss_tolerance"] == 1e-4
    assert off["failed"] == "the loss differs by 2.0e-03, allowed is 1e-04"
    assert "the loss differs by nan" in gone["failed"] and gone["norm_difference"] == 0


LATER = ("rssm", "sssm")  # in test_a_dry_run_shows_every_row too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LATER else ()) for name in equality.MODELS]
)
def test_every_model_tells_its_loss_and_the_norm_of_its_gradient(name):
    function, state, batch = equality.MODELS[name]("dry")
    loss, norm = jax.eval_shape(function, state, jax.random.key(0), batch)
    assert loss.shape == norm.shape == () and loss.dtype == norm.dtype == jnp.float32
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves((state, batch)))


# -- the profile


def events(process, thread, spans, window=(100.0, 1000.0)):
    """A trace: spans {name: [(begin, duration)]} on one thread, and another thread that is none of the device's."""
    names = {1: "/host:CPU", 2: process}
    found = [dict(ph="M", pid=pid, name="process_name", args=dict(name=name)) for pid, name in names.items()]
    for pid, tid, name in ((1, 7, "python"), (2, 7, thread), (2, 8, "XLA Modules")):
        found.append(dict(ph="M", pid=pid, tid=tid, name="thread_name", args=dict(name=name)))
    found.append(dict(ph="X", pid=1, tid=7, ts=window[0], dur=window[1], name=profile.WINDOW))
    found.append(dict(ph="X", pid=2, tid=8, ts=0.0, dur=5000.0, name="jit_module"))
    for name, own in spans.items():
        found += [dict(ph="X", pid=2, tid=7, ts=begin, dur=duration, name=name) for begin, duration in own]
    return found


def test_gaps_between_kernels():
    """Of 1,000 us from 100 on: 300 to 500 by two kernels that overlap, and 50 of one that began before the window."""
    spans = dict(gemm=[(300.0, 150.0), (0.0, 150.0)], copy=[(400.0, 100.0), (2000.0, 10.0)])
    figures = profile.figures(events("/device:GPU:0", "Stream #13(Compute)", spans), "gpu")
    assert figures["gaps"] == pytest.approx(1 - 250 / 1000) and figures["kernels"] == 1
    assert figures["ms"] == pytest.approx(1.0 / profile.CALLS)
    assert figures["longest"] == "gemm 67%, copy 33%"
    tpu = profile.figures(events("/device:TPU:0", "XLA Ops", spans), "tpu")
    assert tpu == figures
    cpu = profile.figures(events("/host:CPU", "tf_XLAEigen/1", spans | {"while.5": [(100.0, 1000.0)]}), "cpu")
    assert cpu == figures  # what encloses operations is none


def test_a_trace_without_kernels_says_so(tmp_path):
    assert profile.read_trace(tmp_path) == []
    of_host = events("/host:CPU", "tf_XLAEigen/1", dict(add=[(200.0, 9.0)]))
    for found in ([], events("/device:GPU:0", "Stream #13", {}), of_host):
        assert profile.figures(found, "gpu") == dict(failed="not available: the trace names no kernels")
    assert "told" in profile.figures([], "cpu") and "ms" in profile.figures(of_host, "cpu")


# -- the learning loop


def test_returns_are_of_first_episodes():
    """Every decision pays 1, a row's episode ends after 3 of them and the next one begins at once."""
    spec = EnvSpec(jax.ShapeDtypeStruct((1, 1, 1), np.uint8), ActionSpec(2, True, 0, 1))

    def arrive(count):
        zeros, none = jnp.zeros(2), jnp.zeros(2, bool)
        reward = jnp.where(count == 0, 0.0, 1.0) + zeros
        return count, Step(zeros.astype(int), jnp.zeros((2, 1, 1, 1), jnp.uint8), reward, zeros + 1, none, count == 3)

    env = JaxEnv(spec, lambda key, rows: arrive(jnp.zeros(2, int)), lambda key, count, action: arrive((count + 1) % 4))
    look = lambda params, key, carry, step: (carry, jnp.zeros(2))
    player = unroll.Player(lambda params, rows: (), look, lambda params, key, step, seen: step.prev_action)
    one = agents.Playing(env, player, None, {}, None, None, 1)
    assert [learning.returns(one, 2, limit, {}, jax.random.key(0)).tolist() for limit in (2, 9)] == [[2, 2], [3, 3]]


def test_the_return_has_to_rise():
    low, high = np.float32([0, 2]), np.float32([4, 6])
    assert learning.risen(low, high) == dict(return_before=1, return_after=5, standard_error=1)
    for after in (low + 2, low, np.full(2, np.nan, np.float32)):
        assert learning.risen(low, after)["failed"] == "the return did not rise by 2 standard errors"


def test_a_short_loop_learns_on_the_device():
    row = learning.learn("dry")
    assert row["frames"] == 2 * 3 * 2 and row["frames/s"] == pytest.approx(12 / row["seconds"]) and "failed" not in row


# -- the device


def test_the_device_is_looked_at(monkeypatch):
    assert [device.digits(error) for error in (4e-7, 3e-4, 3e-3)] == ["float32", "TF32", "bfloat16"]
    assert device.precision()["told"].startswith("float32") and device.donation() == dict(told="reused")
    assert "failed" not in device.platform() and "JAX_PLATFORMS=cpu" in device.platform()["told"]
    monkeypatch.setattr(
        device, "jax", SimpleNamespace(config=SimpleNamespace(jax_platforms="cuda"), devices=jax.devices)
    )
    assert device.platform()["failed"] == "JAX_PLATFORMS=cuda, but programs run on cpu"
    monkeypatch.setattr(doctor, "devices", lambda: doctor.Point("devices", "the machine has a GPU", "make setup"))
    assert device.devices()["failed"] == "the machine has a GPU; type: make setup"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--dry"], "--dry: only with --preset=accelerator, not quick"),
        (["--preset=accelerator", "--only=phase"], "--only=phase: choose from device, planner, train, profile, "),
        (["--preset=accelerator", "--minutes=0"], "minutes"),
        (["--page=a.pdf"], "a.pdf: must end in .html"),
        (["--page=nowhere/a.html"], "/nowhere/a.html: there is no folder /"),
    ],
)
def test_bad_input_is_one_line(flags, named):
    ended = mains.call("benchmark.__main__", *flags)
    assert ended.code == 2 and len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ") and named in ended.stderr
