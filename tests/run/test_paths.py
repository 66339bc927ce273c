"""Paths as users write them, for every flag and setting that is one."""

import os
import pathlib
import shlex
import subprocess

import pytest

from tests import mains
from wmjax.envs import cache
from wmjax.run import paths
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/runs/a", "/home/u/runs/a"),
        ("~", "/home/u"),
        ("/runs//a/./b/", "/runs/a/b"),
        ("runs/a", "{cwd}/runs/a"),
        (".", "{cwd}"),
        ("-o", "{cwd}/-o"),
        ("file:a", "{cwd}/file:a"),
        ("pipe:1", "{cwd}/pipe:1"),
        ("a%03d b'c\"$HOME(4,8)ü", "{cwd}/a%03d b'c\"$HOME(4,8)ü"),
        ("./~", "{cwd}/~"),
        ("a~b", "{cwd}/a~b"),
        ("link/x", "{cwd}/link/x"),
        ("link/../b", "{cwd}/real/b"),
    ],
)
def test_one_place_whatever_the_spelling(text, path, tmp_path, monkeypatch):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/u")
    assert paths.absolute(text) == path.format(cwd=os.path.realpath(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("gs://bucket/run1", "gs://bucket/run1 is not a path of this machine"),
        ("file:///runs/a", "is not a path of this machine"),
        ("runs/a\nb", r"'runs/a\\nb' has characters"),
        ("a\0", "has characters"),
        ("\x1b[2J", "has characters"),
        ("caf\udce9", "has characters"),
        ("~nobody-here/x", "no such user"),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        paths.absolute(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        ("planet.__main__", "--workdir"),
        ("planet.diagnostics", "--workdir"),
        ("planet.offline", "--train"),
        ("planet.offline", "--test"),
        ("planet.offline", "--workdir"),
        ("smaller_world_models.__main__", "--workdir"),
        ("evaluate", "--workdir"),
        ("smaller_world_models.table", "--runs"),
        ("smaller_world_models.table", "--out"),
        ("environment_models.__main__", "--workdir"),
        ("record", "--folder"),
        ("record", "--game=Pong --steps=9 --folder=x --policy"),
        ("environment_models.table", "--folder"),
        ("compare", "--out"),
        ("compare", "--out=a.png --group=A"),
        ("benchmark.__main__", "--json"),
        ("benchmark.__main__", "--chart"),
    ],
)
def test_every_flag_that_is_a_path_reads_it_so(module, flag):
    ended = mains.call(module, *f"{flag}=gs://bucket/x".split())
    assert ended.code == 2 and "gs://bucket/x is not a path" in ended.stderr and ended.stderr.count("\n") == 1


def test_the_same_data_are_the_same_config(tmp_path, monkeypatch):
    from experiments.environment_models import agent as agents
    from experiments.environment_models import config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tasks = {
        agents.read_settings(config.get_config(f"{data},vae,cpu")).task
        for data in ("d", "./d/", "~/d", f"{tmp_path}/d")
    }
    assert tasks == {f"{tmp_path}/d"}
    assert agents.read_settings(config.get_config("ball,vae,cpu")).task == "ball:diffusing"
    with pytest.raises(UsageError, match="config.task=gs://d: gs://d is not a path"):
        agents.read_settings(config.get_config("gs://d,vae,cpu"))


@pytest.mark.parametrize("variable", [None, "", "relative"])
def test_a_cache_folder_that_is_not_absolute_counts_as_unset(variable, monkeypatch):
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert cache.user_cache() == pathlib.Path("/home/u/.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache.user_cache() == pathlib.Path("/fast")


def test_no_home_no_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache.user_cache() is None


@pytest.mark.parametrize("name", ["runs/my run", "~/runs/a", "it's (1)", "a;b&c"])
def test_make_hands_on_a_folder_as_it_is(name):
    made = subprocess.run(["make", "-n", "train", f"WORKDIR={name}"], cwd=mains.ROOT, capture_output=True, text=True)
    assert f"--workdir={name}" in shlex.split(made.stdout, comments=True)
