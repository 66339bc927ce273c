"""One run in two processes that talk over loopback is the run of one process with as many devices.

Of PlaNet: planet/test_processes.py.
"""

import functools
import re
import signal
from typing import NamedTuple

import jax
import numpy as np
import pytest

from tests import mains
from tests.fakes import SPEC, random_steps
from tests.mains import assert_same, metrics, state
from wmjax.storage import datasets, workdir


class Case(NamedTuple):
    """Of a main."""

    flags: tuple[str, ...]  # of a run that two devices share
    uneven: tuple[str, str]  # one that cannot be, and what is said of it
    place: str  # a function that each process calls in its loop
    early: int  # calls of it, after a few updates
    calls: int  # of it, until a run in one process ends between two that are in two
    tolerance: float = 0.0  # as of `assert_one_run`; of two devices there are only two addends, whose sum has no order


ROWS = ("--config.train.rows=4", "--config.devices=all")  # of i2a
CASES = dict(
    environment_models=Case(
        (
            "--config=experiments/environment_models/config.py:ball,vae,cpu",
            "--config.train.updates=4",
            "--config.devices=all",
        ),
        ("--config.train.batch=3", "config.train.batch=3 cannot be split over 2 devices: give a multiple of 2"),
        "experiments.environment_models.__main__:check_finite",
        1,
        2,
    ),
    smaller_world_models=Case(
        (
            "--config.train.iterations=2",
            "--config.train.intervals=(1,)",
            "--config.agent.epochs=1",
            "--config.devices=all",
        ),
        (
            "--config.train.dynamics_batch=3",
            "config.train.dynamics_batch=3 cannot be split over 2 devices: give a multiple of 2",
        ),
        "experiments.smaller_world_models.phases:Curve.part",
        3,
        85,  # in the second iteration
    ),
    i2a=Case(
        (
            "--config=experiments/i2a/config.py:minipacman:regular,uniform,cpu",
            "--config.agent.horizon=1",
            *ROWS,
        ),
        ("--config.train.rows=3", "config.train.rows=3 cannot be split over 2 devices: give a multiple of 2"),
        "experiments.i2a.__main__:check_finite",
        2,
        3,
        1e-4,  # measured: with sizes of the cpu preset up to 2e-5 in a loss and 2e-6 in the learner, with these 0
    ),
)
EVERY = pytest.mark.parametrize("experiment", CASES)
SLOW = dict.fromkeys(("environment_models", "i2a"), pytest.mark.slow)  # they repeat PlaNet's and the other's
SPEAKS = "[Gloo]"  # the library that connects processes on CPUs, on standard output


def codes(ended):
    return [each.code for each in ended]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A function: the folder of an experiment's run in one process with two devices, made once."""

    @functools.cache
    def made(experiment):
        folder = tmp_path_factory.mktemp("one") / "run"
        ended = mains.start(folder, *CASES[experiment].flags, experiment=experiment, devices=2)
        assert ended.code == 0, ended.stderr
        return folder

    return made


def assert_one_run(folder, other, tolerance=0.0):
    """The same metrics, and the same checkpoint but for what names the pools of environments.

    tolerance: of losses and of what a learner holds, in parts of each one's largest number.
    """

    def compare(path, value, expected):
        if isinstance(expected, jax.Array):  # keys; all else comes back as numpy
            value, expected = map(jax.random.key_data, (value, expected))
        if re.search("train/|losses|learner", jax.tree_util.keystr(path)):
            largest = np.max(np.abs(expected), initial=0.0)
            np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * largest)
        else:
            assert_same(value, expected)

    one, two = ((metrics(each), *map(without_identities, state(each))) for each in (folder, other))
    jax.tree_util.tree_map_with_path(compare, one, two)


def without_identities(saved):
    if not isinstance(saved, dict):
        return saved
    return {name: without_identities(value) for name, value in saved.items() if name != "identity"}


@pytest.mark.slow
@EVERY
def test_two_processes_are_one_with_two_devices(experiment, one_process, tmp_path):
    two = mains.together(tmp_path / "run", *CASES[experiment].flags, experiment=experiment)
    assert codes(two) == [0, 0], two
    said = [line for line in two[1].stdout.splitlines() if not line.startswith((SPEAKS, "moves: 0"))]
    assert said == [] and two[1].stderr == "" and "report: " in two[0].stdout, two
    assert_one_run(tmp_path / "run", one_process(experiment), CASES[experiment].tolerance)


@pytest.mark.parametrize("experiment", [pytest.param(name, marks=SLOW.get(name, ())) for name in CASES])
def test_the_first_updates_of_two_processes_are_those_of_one(experiment, tmp_path):
    """Until a signal comes to the second process; and what was collected before, by the first one alone."""
    flags, _, place, early, _, tolerance = CASES[experiment]
    main, stopped = dict(experiment=experiment), dict(stop_at=(place, early))
    one = mains.start(tmp_path / "one", *flags, **main, **stopped, devices=2)
    two = mains.together(tmp_path / "two", *flags, **main, of_second=stopped)
    assert [one.code, *codes(two)] == [75, 75, 75], (one, two)
    assert_one_run(tmp_path / "two", tmp_path / "one", tolerance)
    assert state(tmp_path / "two")[0]["counters"]["updates"] > 0


@EVERY
def test_an_uneven_division_is_refused_once(experiment, tmp_path):
    flag, named = CASES[experiment].uneven
    ended = mains.together(tmp_path / "run", *CASES[experiment].flags, flag, experiment=experiment)
    assert codes(ended) == [2, 2] and not (tmp_path / "run").exists()
    assert ended[0].stderr == f"error: {named}\n" and ended[1].stderr == "", ended


@pytest.mark.slow
@EVERY
def test_two_processes_resume_one_and_are_resumed_by_it(experiment, one_process, tmp_path):
    """Asked to end by a signal to the second process; goes on in one for a while, then in two again.

    In one it has as many devices, or one alone where its sums may differ.
    """
    (flags, _, place, _, calls, tolerance), folder = CASES[experiment], tmp_path / "run"
    asked = mains.together(folder, *flags, experiment=experiment, of_second=dict(stop_at=(place, 1)))
    assert codes(asked) == [75, 75], asked
    assert asked[0].stderr == "stopped by SIGTERM: the same command goes on\n"
    devices = 1 if tolerance else 2
    went_on = mains.start(folder, *flags, experiment=experiment, devices=devices, stop_at=(place, calls))
    assert went_on.code == 75 and "resumed after" in went_on.stdout, went_on.stderr
    again = mains.together(folder, *flags, experiment=experiment)
    assert codes(again) == [0, 0] and "resumed after" in again[0].stdout, again
    assert_one_run(folder, one_process(experiment), tolerance)


@pytest.mark.slow
@EVERY
def test_a_process_that_dies_ends_the_other(experiment, tmp_path):
    (flags, _, place, *_), run = CASES[experiment], tmp_path / "run"
    ended = mains.together(run, *flags, experiment=experiment, of_second=dict(stop_at=(place, 2, signal.SIGKILL)))
    assert ended[1].code == -signal.SIGKILL and ended[0].code not in (0, 75), ended
    assert ended[0].at - ended[1].at < 30


@pytest.mark.slow
def test_each_process_copies_its_share_of_images_on_the_host(tmp_path):
    data, main = tmp_path / "data", dict(experiment="environment_models")
    index = datasets.open_folder(data, dict(game="noise"), SPEC)
    for number in range(3):
        steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, 2, 16, seed=number))
        index = datasets.add(data, index, number, steps.replace(reward=np.sign(steps.reward)))
    workdir.close_workdir(data)
    config = f"--config=experiments/environment_models/config.py:{data},vae,cpu_games"  # begins at the mean image
    flags = (config, "--config.train.updates=2", "--config.data.images=host", "--config.devices=all")
    one = mains.start(tmp_path / "one", *flags, **main, devices=2)
    assert one.code == 0, one.stderr
    two = mains.together(tmp_path / "two", *flags, **main)
    assert codes(two) == [0, 0], two
    assert_one_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_each_process_steps_its_share_of_games(tmp_path):
    """On the host; asked to end while they act."""
    game = dict(experiment="i2a", tiny=mains.I2A_GAME)
    one = mains.start(tmp_path / "one", *ROWS, **game, devices=2)
    assert one.code == 0, one.stderr
    asked = mains.together(
        tmp_path / "two", *ROWS, **game, of_second=dict(stop_at=("wmjax.envs.atari:AtariVecEnv.step", 14))
    )
    assert codes(asked) == [75, 75] and 0 < mains.summary(tmp_path / "two")["updates"] < 6, asked
    again = mains.together(tmp_path / "two", *ROWS, **game)
    assert codes(again) == [0, 0], again
    assert_one_run(tmp_path / "two", tmp_path / "one", CASES["i2a"].tolerance)


@pytest.mark.slow
def test_rollouts_that_are_made_again_begin_alike_after_resuming(one_process, tmp_path):
    """Of an agent that learns to query: a checkpoint holds the keys of what it is about to decide on."""
    data, model = tmp_path / "data", tmp_path / "model"
    shards = ("--steps=100", "--envs=2", "--rows=31", f"--folder={data}")
    recorded = mains.call("record", "--game=minipacman:regular", f"--policy={one_process('i2a')}", *shards)
    assert recorded.code == 0, recorded.stderr
    learn = f"--config=experiments/environment_models/config.py:{data},dssm_det,cpu_grid"
    sizes = ("--config.model.reward_digits=4", "--config.train.updates=2", "--config.train.predicted=2")
    trained = mains.start(model, learn, *sizes, experiment="environment_models")
    assert trained.code == 0, trained.stderr

    config = "--config=experiments/i2a/config.py:minipacman:regular,ltq,cpu"
    flags, main = (config, f"--config.model_run={model}", *ROWS), dict(experiment="i2a")
    one = mains.start(tmp_path / "one", *flags, **main, devices=2)
    assert one.code == 0, one.stderr
    stopped = mains.together(tmp_path / "two", *flags, **main, of_second=dict(stop_at=(CASES["i2a"].place, 3)))
    again = mains.together(tmp_path / "two", *flags, **main)
    assert [codes(stopped), codes(again)] == [[75, 75], [0, 0]], (stopped, again)
    assert_one_run(tmp_path / "two", tmp_path / "one", CASES["i2a"].tolerance)
