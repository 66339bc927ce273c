"""The doctors beside the configs, but for PlaNet's: what a run needs, and what its main would refuse."""

import re
import shlex

import pytest

from experiments.environment_models import agent as environment_models
from experiments.environment_models import config as environment_configs
from experiments.environment_models import doctor as environment_doctor
from experiments.i2a import doctor as i2a_doctor
from experiments.smaller_world_models import agent as smaller_world_models
from experiments.smaller_world_models import config as smaller_configs
from experiments.smaller_world_models import doctor as smaller_doctor
from tests import mains
from wmjax import doctor, memory


@pytest.fixture(autouse=True)
def no_machine(monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda: iter([doctor.Point("machine", "there")]))
    for each in (environment_doctor, smaller_doctor, i2a_doctor):
        monkeypatch.setattr(each, "SECONDS", 0.01)


def look(experiment, *words):
    return mains.call(f"{experiment}.doctor", *mains.words_of("runs/a", words, experiment))


@pytest.mark.parametrize(
    ("experiment", "lines"),
    [
        (
            "environment_models",
            [
                "ok   data: 6 sequences to train on and 4 held out, 0.00 GB of memory",
                "ok   memory: .*",
                "ok   disk of .*, the run takes 0.0 GB",
                "ok   time: about 0 minutes, an estimate: an update takes .* s, an evaluation .* s; load .*",
            ],
        ),
        (
            "smaller_world_models",
            [
                "ok   memory: .*, the run takes 0.0 GB",
                "ok   disk of .*, the run takes 0.0 GB",
                "ok   time: about [0-9]+ minutes beside evaluations, an estimate: "
                "one decision .* s, warm up .* s, fit .* s, dream .* s; load .*",
            ],
        ),
        (
            "i2a",
            [
                r"ok   agent: distilled asks simulator: 5 actions, images of \(9, 11, 3\)",
                "ok   memory: .*",
                "ok   disk of .*, the run takes 0.0 GB",
                "ok   time: about 0 minutes beside evaluations, an estimate: "
                "an update, with its 12 decisions, takes .* s; load .*",
            ],
        ),
    ],
)
def test_a_run_that_fits(experiment, lines):
    ended = look(experiment)
    assert ended.code == 0, ended.stderr
    first, *told, last = ended.stdout.splitlines()
    assert (first, last) == ("ok   machine: there", "all is ok") and len(told) == len(lines)
    for line, pattern in zip(told, lines, strict=True):
        assert re.fullmatch(pattern, line), line


def test_minutes_of_a_model_are_those_of_updates_and_evaluations():
    config = environment_configs.get_config("ball,sssm,cpu")
    config.train.update(updates=600, every=200)
    costs = environment_doctor.Costs(update=0.5, evaluation=20.0)
    assert environment_doctor.minutes(environment_models.read_settings(config), costs) == 600 * 0.5 / 60 + 3 * 20 / 60


def test_minutes_of_an_iteration_are_those_of_its_phases():
    """20 points each: 100 rows make 10 updates of the warm-up's batches of 10, and 5 cycles of two chunks of 10."""
    config = smaller_configs.get_config("Pong,cpu")
    config.train.update(interactions=(99, 100), warmup_epochs=20, autoencoder_batch=10, epochs=(40, 20), rounds=(40,))
    config.train.update(dynamics_batch=1, dynamics_chunk=10, intervals=(2, 4), imagined_steps=5, iterations=1)
    costs = smaller_doctor.Costs(decision=0.6, warm_up=0.1, fit=0.5, dream=3.0)
    first = 99 * 0.6 + 200 * 0.1 + 200 * 0.5 + 40 * 3.0
    assert smaller_doctor.minutes(smaller_world_models.read_settings(config), costs) == pytest.approx(first / 60)
    config.train.iterations = 2  # 200 rows by then; four updates of the dynamics, of 0.2 s, for one of the autoencoder
    second = 100 * 0.6 + 100 * 0.9 + 40 * 3.0
    assert smaller_doctor.minutes(smaller_world_models.read_settings(config), costs) == pytest.approx(
        (first + second) / 60
    )


def test_a_replay_that_does_not_fit_can_be_made_smaller(monkeypatch):
    """61 + 30 + 30 rows of 8 x 8 images; the run as it is, and as the doctor says."""
    monkeypatch.setattr(smaller_doctor, "probe", lambda *_: smaller_doctor.Costs(1.0, 1.0, 2.0, 1.0))
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
