"""The doctors beside the configs, but for PlaNet's: what a run needs, and what its main would refuse."""

import shlex

import pytest

from tests import mains
from wmjax import doctor, memory


@pytest.fixture(autouse=True)
def no_machine(monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda: iter([doctor.Point("machine", "there")]))


def look(experiment, *words):
    return mains.call(f"{experiment}.doctor", *mains.words_of("runs/a", words, experiment))


@pytest.mark.parametrize(
    ("experiment", "line"),
    [
        ("environment_models", "ok   data: 6 sequences to train on and 4 held out, 0.00 GB of memory"),
        ("i2a", "ok   agent: distilled asks simulator: 5 actions, images of (9, 11, 3)"),
    ],
)
def test_a_run_that_fits(experiment, line):
    ended = look(experiment)
    assert ended.code == 0, ended.stderr
    told = ended.stdout.splitlines()
    assert told[:2] == ["ok   machine: there", line] and told[2].startswith("ok   memory: ")
    assert ", the run takes " in told[3] and told[4] == "all is ok"


def test_a_replay_that_does_not_fit_can_be_made_smaller(monkeypatch):
    """61 + 30 + 30 rows of 8 x 8 images; the run as it is, and as the doctor says."""
    monkeypatch.setattr(memory, "free_memory", lambda: 9_000)
    ended = look("smaller_world_models")
    assert ended.code == 1 and "mend memory: 0.0 GB free, the run takes 0.0 GB" in ended.stdout
    (typed,) = (line.partition("type: ")[2] for line in ended.stdout.splitlines() if "type: " in line)
    (word,) = shlex.split(typed)
    assert word.startswith("--config.train.interactions=(") and look("smaller_world_models", word).code == 1
    monkeypatch.setattr(memory, "free_memory", lambda: 9_000_000)
    assert look("smaller_world_models").code == 0


@pytest.mark.parametrize(
    ("experiment", "words", "told"),
    [
        (
            "smaller_world_models",
            ["--config.train.dynamics_chunk=999"],
            "config.train.dynamics_chunk=999: with 2 frames",
        ),
        ("environment_models", ["--config.data.length=3"], "config.data.length=3: a chunk of this model has"),
        ("environment_models", ["--config=experiments/environment_models/config.py:/no,sssm,cpu"], "/no"),
        ("i2a", ["--config.model_run=/nowhere"], "/nowhere is not the working folder of a run"),
        ("i2a", ["--config.agent.horizon=99"], "config.agent.horizon=99: 99 decisions, an episode has 7"),
    ],
)
def test_what_the_main_refuses_is_refused(experiment, words, told):
    ended = look(experiment, *words)
    assert ended.code == 2 and told in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stdout == "ok   machine: there\n"


def test_a_config_is_asked_for():
    ended = mains.call("i2a.doctor")
    assert ended.code == 2 and ended.stderr.startswith("error: give --config=experiments/i2a/config.py:")
