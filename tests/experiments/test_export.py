"""Exported runs act as the runs themselves, hold nothing else and are not trained on."""

import errno
import importlib
import json
import os
from unittest import mock

import chex
import pytest

from experiments import export
from experiments.environment_models import agent as environment_models
from tests import mains
from wmjax.storage import datasets, files, workdir
from wmjax.types import UsageError


@pytest.mark.parametrize("experiment", mains.FLAGS)
def test_an_exported_run_acts_with_the_same_parameters(experiment, tmp_path_factory, tmp_path):
    folder, _ = mains.whole_run(tmp_path_factory, experiment)
    ended = mains.call("export", f"--workdir={folder}", f"--out={tmp_path / 'out'}")
    assert ended.code == 0, ended.stderr
    load = importlib.import_module(f"experiments.{experiment}.agent").load
    one, two = load(folder), load(tmp_path / "out")
    chex.assert_trees_all_equal(one.params, two.params)
    for field in {"updates", "task", "env", "spec", "settings", "episodes", "iterations"} & set(one._fields):
        assert getattr(one, field) == getattr(two, field)
    (learners,) = ({leaf["path"][0] for leaf in state} for state in saved(tmp_path / "out"))
    assert learners <= set(export.LEARNERS)
    assert not [leaf for state in saved(tmp_path / "out") for leaf in state if "opt_state" in leaf["path"]]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["finished"]
    files = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [content for content in files if str(tmp_path).encode() in content]  # nothing of where it was made


def saved(folder):
    """The leaves of each checkpoint, by its manifest."""
    return [json.loads(path.read_text())["body"]["leaves"] for path in folder.glob("checkpoints/*/manifest.json")]


def test_the_parameters_that_act_are_kept_alone():
    averaged = dict(params=1, acting=2, opt_state=3, updates=4)
    assert export.acting(averaged) == dict(acting=2, updates=4)
    assert export.acting(averaged | dict(acting=None)) == dict(params=1, acting=None, updates=4)


def test_a_full_disk_leaves_no_half_of_an_export(tmp_path_factory, tmp_path, monkeypatch):
    folder, _ = mains.whole_run(tmp_path_factory)
    words = (f"--workdir={folder}", f"--out={tmp_path / 'out'}")
    with monkeypatch.context() as patched:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "config.json")
        patched.setattr(files, "atomic_write", mock.Mock(side_effect=full))
        ended = mains.call("export", *words)
    assert ended.code == 2 and "disk full" in ended.stderr and ended.stderr.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())
    assert mains.call("export", *words).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_training_does_not_go_on_from_an_export(tmp_path_factory, tmp_path):
    folder, _ = mains.whole_run(tmp_path_factory)
    assert mains.call("export", f"--workdir={folder}", f"--out={tmp_path / 'out'}").code == 0
    ended = mains.refused(tmp_path / "out")
    assert ended.code == 2 and "exported True -> (absent)" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_model_of_recorded_data_needs_them_no_longer(tmp_path_factory, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    whole, _ = mains.whole_run(tmp_path_factory, "environment_models")
    spec = environment_models.load(whole).spec
    files.write_sealed(data / datasets.INDEX, datasets.open_folder(data, dict(game="ball", rows=1), spec))
    workdir.close_workdir(data)
    run.mkdir()
    (run / "checkpoints").symlink_to(whole / "checkpoints")
    config = json.loads((whole / "config.json").read_text()) | dict(task=str(data), recorded="0")
    (run / "config.json").write_text(json.dumps(config))
    export.export(run, tmp_path / "out")
    data.rename(tmp_path / "gone")
    export.export(tmp_path / "out", tmp_path / "again")
    assert environment_models.load(tmp_path / "again").spec == spec
    loaded = environment_models.load(tmp_path / "out")
    assert loaded.spec == spec and str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    with pytest.raises(UsageError, match="data"):
        environment_models.load(run)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--workdir"),
        (["--workdir={}"], "--out"),
        (["--workdir={}", "--out={}"], "not an empty folder"),
        (["--workdir={}/none", "--out={}/out"], "not the working folder of a run"),
        (["--workdir={}/run", "--out={}/file/out"], "cannot write into"),
        (["--workdir={}/run", "--out={}/out"], "has no checkpoint yet"),
    ],
)
def test_bad_input_ends_in_one_line(words, told, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    ended = mains.call("export", *(word.format(tmp_path) for word in words))
    assert ended.code == 2 and told in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
