"""PlaNet's doctor: what a config needs, and how its minutes are made of what was measured."""

import os
import re

import numpy as np
import pytest

from experiments.planet import agent, config, doctor
from tests import mains
from wmjax import doctor as machine
from wmjax import memory
from wmjax.types import Step, UsageError

COSTS = doctor.Costs(evaluated=0.5, decision=0.1, update=0.2)


def changed(*changes):
    asked = config.get_config("cheetah_run,cpu")
    for name, value in changes:
        setattr(asked.train, name, value)
    return agent.read_settings(asked)


def test_minutes_are_made_of_episodes_updates_and_evaluations():
    evaluations = 5 * 250 * 0.5
    assert doctor.minutes(changed(), 250, COSTS) == pytest.approx((95 * 250 * 0.1 + evaluations) / 60)
    seeding = doctor.minutes(changed(("seed_episodes", 40)), 250, COSTS)  # none is evaluated then
    assert seeding == pytest.approx((60 * 250 * 0.1 + 3 / 5 * evaluations) / 60)
    slow = COSTS._replace(update=0.3)
    assert doctor.minutes(changed(), 250, slow) == pytest.approx((95 * 100 * 0.3 + evaluations) / 60)
    in_turn = doctor.minutes(changed(("overlap", False)), 250, COSTS)
    assert in_turn == pytest.approx((95 * (250 * 0.1 + 100 * 0.2) + evaluations) / 60)
    two_tasks = doctor.minutes(changed(("overlap", False), ("tasks", ("walker_walk",))), 750, COSTS)
    assert two_tasks == pytest.approx((45 * (750 * 0.1 + 200 * 0.2) + 3 * evaluations) / 60)
    many = doctor.minutes(changed(("overlap", False), ("num_envs", 5)), 250, COSTS)
    assert many == pytest.approx((19 * (250 * 0.1 + 500 * 0.2) + evaluations) / 60)


def test_beside_updates_software_draws_without_threads(monkeypatch):
    asked = config.get_config("no_such_task,cpu")
    monkeypatch.setenv("LP_NUM_THREADS", "3")
    for overlap, before, after in ((True, "3", "3"), (False, None, None), (True, None, "0")):
        if before is None:
            monkeypatch.delenv("LP_NUM_THREADS", raising=False)
        asked.train.overlap = overlap
        with pytest.raises(UsageError, match="no_such_task"):
            agent.prepare(agent.read_settings(asked))
        assert os.environ.get("LP_NUM_THREADS") == after


def test_episodes_without_a_limit_have_no_minutes():
    assert "unknown" in doctor.time_text(changed(), None, COSTS)


@pytest.fixture
def no_machine(monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", 0.1)
    monkeypatch.setattr(machine, "machine", lambda: iter([machine.Point("machine", "there")]))


def test_a_run_that_fits(no_machine):
    ended = mains.call("planet.doctor", *mains.PLANET)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("ok   machine: there\nok   memory: ")
    line = "ok   time: about 0 minutes to the run's end, an estimate: a decision takes .* s, an update .* s; load .*"
    assert re.fullmatch(line, ended.stdout.splitlines()[-2])


def test_memory_and_disk_of_a_run(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 30_000)
    step = Step(*(np.zeros(shape, np.uint8) for shape in [(2, 3), (2, 4), 2, 2, 2, 2]))  # 22 bytes, of 2 environments
    settings = changed(("num_envs", 2), ("replay_rows", 4000), ("episodes", 12), ("keep_checkpoints", 1))
    found = doctor.needs(settings, step, 250, np.zeros(5, np.uint8))
    assert found == machine.Needs(22 * 2000, 11 * 12 * 251 + 2 * 5, "--config.train.replay_rows=2454")
    assert doctor.needs(settings, step, None, np.zeros(5, np.uint8)).disk == 10  # no limit: unknown, but checkpoints


def test_faults_of_the_machine_come_first(no_machine, monkeypatch):
    monkeypatch.setattr(machine, "machine", lambda: iter([machine.Point("machine", "gone", "make machine")]))
    ended = mains.call("planet.doctor", *mains.PLANET)
    assert ended.code == 1 and "type: make machine" in ended.stdout and "time" not in ended.stdout


def test_what_the_main_refuses_is_refused(no_machine):
    ended = mains.call("planet.doctor", *mains.PLANET, "--config.train.chunk=99")
    assert ended.code == 2 and "chunk=99" in ended.stderr
    assert mains.call("planet.doctor").code == 2
