"""A run around a training loop of pure counting: killed before every file's move, stopped and timed at every turn.

The loop below does what the mains do, in milliseconds: it collects rows from an environment with snapshots, trains in
several dispatches, evaluates, writes metrics and holds what it would go back to.
"""

import itertools
import os
import shutil

import numpy as np
import pytest

from tests.mains import assert_same, metrics, state
from wmjax import envs
from wmjax.report.progress import Progress
from wmjax.run import lifecycle, stop
from wmjax.run.collect import stack
from wmjax.run.members import Member
from wmjax.storage import checkpoint, workdir
from wmjax.types import UsageError

PLANNED, EVERY, DISPATCHES = 4, 2, 3  # rounds, rounds between evaluations, dispatches of a round
TURNS = PLANNED * (2 + DISPATCHES) + PLANNED // EVERY


class Killed(BaseException):
    """In place of SIGKILL: nothing of the run is told."""


def train(folder, members=1, planned=PLANNED, turn=lambda: None):
    """A main. turn: called once in every turn of its loop, where signals and clocks may strike."""
    config = dict(task="counting", seed=3, population=members, rounds=planned)
    everybody = [Member("counting", 3 + i) for i in range(members)]
    env = envs.make("fake:counter", members, 5, episode_steps=3)
    env.reset()
    run = lifecycle.open_run(
        folder, config, everybody, may_differ=("rounds",), unit="round", planned=planned, minutes=1.0, keep=2
    )
    counters = dict(rounds=0, done=0, plays=0, env_steps=0, updates=0, evaluated=0)
    weights, partial = np.zeros(members), dict(row={})
    snapshot = dict(env=env.snapshot())
    template = dict(weights=weights, counters=counters)
    saved = run.restore(template | dict(partial=checkpoint.AS_SAVED, env=checkpoint.AS_SAVED))
    if saved:
        weights, counters, partial = (saved[name] for name in ("weights", "counters", "partial"))
        snapshot = dict(env=saved["env"])
        env.restore(saved["env"])
    memory = list(checkpoint.load_rows(folder, counters["plays"]))
    run.drop_rows_from(counters["plays"])

    def counted():
        return {name: counters[name] for name in ("rounds", "env_steps", "updates")}

    def hold():
        held = dict(weights=weights.copy(), counters=dict(counters), partial=dict(partial))
        run.hold(counters["rounds"], held | snapshot)

    def evaluate():
        turn()
        stop.check()
        return [{"eval/return_mean": float(weight), "eval/return_std": 0.0} for weight in weights]

    hold()
    while run.goes_on(counters["rounds"]):
        turn()
        if counters["plays"] == counters["rounds"]:
            steps = stack([env.step(np.full((members, 2), 0.1, np.float32)) for _ in range(3)])
            run.append_rows(counters["plays"], steps)
            memory.append(steps)
            snapshot = dict(env=env.snapshot())
            counters["plays"] += 1
            counters["env_steps"] += 3
        elif counters["done"] < DISPATCHES:
            weights = weights + [sum(steps.reward[:, i].sum() for steps in memory) for i in range(members)]
            counters["updates"] += 1
            counters["done"] += 1
            partial = dict(row={"train/loss": float(counters["updates"])})
        else:
            rows = [dict(partial["row"]) for _ in range(members)]
            if (counters["rounds"] + 1) % EVERY == 0:
                run.save()
                try:
                    with run.evaluating():
                        rows = [row | own for row, own in zip(rows, evaluate(), strict=True)]
                except stop.Stopped:
                    break
                counters["evaluated"] = counters["updates"]
            counters |= dict(rounds=counters["rounds"] + 1, done=0)
            run.write(counted(), rows)
        hold()
        if counters["updates"] % 4 == 3:
            run.save()
    run.save()
    if run.is_cut_short(counters["rounds"]) and counters["updates"] > counters["evaluated"]:
        run.write_lines([counted() | row for row in evaluate()])
    run.finish(counters["rounds"], counted())


def attempt(folder, **settings):
    """Runs `train` as one process would: its lock and its signal handlers go with it. Returns how it ended."""
    try:
        train(folder, **settings)
    except (Killed, stop.Stopped) as ended:
        return type(ended)
    finally:
        stop.forget()
        workdir.close_workdir(folder)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Reports and videos have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "write_report", lambda folder: folder / "report.html")
        patch.setattr(lifecycle, "write_population_report", lambda folder, members: folder / "report.html")
        patch.setattr(lifecycle, "check_ffmpeg", lambda: None)
        yield


@pytest.fixture(scope="module")
def whole(quick, tmp_path_factory):
    """(folders of undisturbed runs by number of members, files that they moved)."""
    moves, replace = [], os.replace
    found = {}
    for members in (1, 2):
        moves.clear()
        found[members] = tmp_path_factory.mktemp("whole") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", lambda *args, **more: (moves.append(args[1]), replace(*args, **more))[1])
            assert attempt(found[members], members=members) is None
        found[members, "moves"] = sum(str(found[members]) in str(place) for place in moves)
    return found


def assert_as_whole(folder, whole, members=1):
    for name in [""] if members == 1 else ["seed_3", "seed_4"]:
        assert metrics(folder / name) == metrics(whole[members] / name)
    assert_same(state(folder), state(whole[members]))


def test_an_undisturbed_run_is_what_the_loop_says(whole):
    rows = metrics(whole[1])
    assert [row["rounds"] for row in rows] == [1, 2, 3, 4] and [row["updates"] for row in rows] == [3, 6, 9, 12]
    assert ["eval/return_mean" in row for row in rows] == [False, True, False, True]
    assert whole[1, "moves"] > 10


@pytest.mark.parametrize("members", [1, 2])
def test_killed_before_any_move_a_run_ends_as_if_never_killed(whole, tmp_path, monkeypatch, members):
    replace = os.replace
    for kill_at in range(1, whole[members, "moves"] + 1, members):
        moves = itertools.count(1)

        folder = tmp_path / f"{kill_at}"

        def move(*args, moves=moves, kill_at=kill_at, folder=folder, **more):
            if str(folder) in str(args[1]) and next(moves) == kill_at:
                raise Killed
            return replace(*args, **more)

        monkeypatch.setattr(os, "replace", move)
        assert attempt(folder, members=members) is Killed
        monkeypatch.setattr(os, "replace", replace)
        assert attempt(folder, members=members) is None
        assert_as_whole(folder, whole, members)


def strike(at, what):
    """A function that calls `what` when it is called for the at-th time."""
    turns = itertools.count(1)

    def turn():
        if next(turns) == at:
            what()

    return turn


def test_stopped_at_any_turn_a_run_ends_as_if_never_stopped(whole, tmp_path):
    for at in range(1, TURNS + 1):
        folder = tmp_path / f"{at}"
        ended = attempt(folder, turn=strike(at, lambda: stop._asked.append("SIGTERM")))
        assert ended is stop.Stopped, at
        assert attempt(folder) is None
        assert_as_whole(folder, whole)


def test_timed_at_any_turn_a_run_ends_as_if_never_timed(whole, tmp_path, monkeypatch):
    """Its last evaluation is there when it ends, and gone when it goes on; every other run is stopped as well."""
    for at in range(1, TURNS - PLANNED // EVERY, 2):
        folder, asked = tmp_path / f"{at}", itertools.count(1)
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "out_of_time", lambda *_, asked=asked, at=at: next(asked) > at)
            assert attempt(folder, turn=lambda: None) is None
        rows = metrics(folder)
        assert not rows or at < DISPATCHES + 2 or "eval/return_mean" in rows[-1]
        assert attempt(folder, turn=strike(at // 2, lambda: stop._asked.append("SIGINT"))) in (None, stop.Stopped)
        assert attempt(folder) is None
        assert_as_whole(folder, whole)


def test_a_prolonged_run_is_as_one_that_was_as_long_from_the_start(whole, tmp_path):
    assert attempt(tmp_path / "run", planned=2) is None
    assert attempt(tmp_path / "run") is None
    assert_as_whole(tmp_path / "run", whole)


def test_another_config_is_refused_and_nothing_touched(whole):
    before = metrics(whole[1])
    with pytest.raises(UsageError, match="population 1 -> 2"):
        attempt(whole[1], members=2)
    assert metrics(whole[1]) == before


def test_what_is_refused_at_a_resume_takes_nothing_away(tmp_path):
    attempt(tmp_path)
    written = tmp_path / "metrics.jsonl"
    written.write_bytes(b"\n" + written.read_bytes())
    before = {name: (tmp_path / name).read_bytes() for name in ("metrics.jsonl", "summary.json")}
    with pytest.raises(UsageError, match="damaged at line 1"):
        attempt(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_run_without_its_checkpoints_does_not_begin_anew(tmp_path):
    attempt(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "metrics.jsonl").read_bytes(), sorted((tmp_path / "replay").iterdir())
    with pytest.raises(UsageError, match="has results, but its checkpoints are gone"):
        attempt(tmp_path)
    assert before == ((tmp_path / "metrics.jsonl").read_bytes(), sorted((tmp_path / "replay").iterdir()))


def test_no_last_evaluation_is_due_after_a_signal(tmp_path, monkeypatch):
    run = lifecycle.Run(tmp_path, [tmp_path], "round", 4, 1.0, 2)
    assert run.is_cut_short(3) and not run.is_cut_short(4)
    monkeypatch.setattr(lifecycle.processes, "asked", lambda: "SIGTERM")
    assert not run.is_cut_short(3)


def test_minutes_go_on_in_a_resumed_run(tmp_path):
    run = lifecycle.Run(tmp_path, [tmp_path], "round", 4, 1.0, 2)
    run.progress = Progress(4, 1.0, done_minutes=7.0, unit="round")
    run.hold(1, {})
    assert 7 <= run.held()["run"]["minutes"] < 8
