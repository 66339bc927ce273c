"""The folder for files that can be made again, and the copies of the suite's models in it."""

import concurrent.futures
import os
import pathlib
import shutil
import tempfile
import threading
import time

import pytest

from wmjax.envs import cache, dmc_render_quality
from wmjax.types import UsageError

FILES = {
    "walker.xml": b'<a><quality shadowsize="4096"/></a>',
    "common/materials.xml": b"<b>\xe4</b>",
    "dog/skin.png": b"",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home of this test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # empty means unset
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def base(place):
    """A folder of models, as envpool's."""
    for name, content in FILES.items():
        path = place / "base" / "mujoco" / "assets_dmc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place / "base"


def models(base):
    """{name: content} of the models with a smaller shadow map."""
    folder = pathlib.Path(dmc_render_quality.assets(str(base), 256, multisample=True)) / "mujoco" / "assets_dmc"
    return {name: (folder / name).read_bytes() for name in FILES}


WANTED = FILES | {"walker.xml": b'<a><quality shadowsize="256"/></a>'}


def test_it_is_the_users_cache(place, monkeypatch):
    assert cache.folder() == place / "home" / ".cache" / "wmjax" / "drawing"
    assert cache.folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "x"))
    assert cache.folder() == place / "x" / "wmjax" / "drawing"
    monkeypatch.setenv("XDG_CACHE_HOME", "x")  # a relative one counts as unset too
    assert cache.folder() == place / "home" / ".cache" / "wmjax" / "drawing"


def open_to_others(folder):
    folder.chmod(0o777)


def elsewhere(folder):
    folder.rename(folder.parent / "real")
    folder.symlink_to(folder.parent / "real")


def a_file(folder):
    folder.rmdir()
    folder.write_text("")


def of_another_user(folder):
    os.chown(folder, 12345, 12345)


FOREIGN = [open_to_others, elsewhere, a_file]
FOREIGN += [of_another_user] if os.getuid() == 0 else []


@pytest.mark.parametrize("spoil", FOREIGN)
def test_a_folder_that_is_not_the_users_alone_is_not_used(place, spoil):
    spoil(cache.folder())
    temporary = cache.folder()
    assert temporary == place / f"wmjax-{os.getuid()}" and temporary.stat().st_mode & 0o777 == 0o700
    spoil(temporary)
    own = cache.folder()
    assert own.name.startswith("wmjax-") and own.stat().st_mode & 0o777 == 0o700 and own != temporary
    assert cache.folder() == own
    shutil.rmtree(own)


def test_a_machine_without_any_folder_is_told(place, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    monkeypatch.setattr(cache, "_of_this_process", cache._of_this_process.__wrapped__)
    with pytest.raises(UsageError, match="no folder for temporary files"):
        cache.folder()


def test_models_come_back_whatever_a_cleaner_took(base):
    assert models(base) == WANTED
    (folder,) = cache.folder().glob("quality-*")
    before = {path: path.lstat().st_ino for path in folder.rglob("*")}
    assert models(base) == WANTED and {path: path.lstat().st_ino for path in folder.rglob("*")} == before
    for name in FILES:
        (folder / "mujoco" / "assets_dmc" / name).unlink()
        assert models(base) == WANTED
    (folder / "mujoco" / "assets_dmc" / "walker.xml").write_bytes(b"")  # a power cut
    assert models(base) == WANTED
    shutil.rmtree(cache.folder())
    assert models(base) == WANTED


def test_nothing_stays_of_killed_processes(base):
    old, new = (cache.folder() / f"{dmc_render_quality.SCRATCH}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.mkdir()
        (path / "walker.xml").write_bytes(b"half")
    os.utime(old, (time.time() - 86400,) * 2)
    models(base)
    assert not old.exists() and new.exists()  # the other may be at work


def test_many_processes_make_them_at_once(base):
    together = threading.Barrier(8)

    def make(_):
        together.wait()
        return models(base)

    for _ in range(5):
        shutil.rmtree(cache.folder())
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert list(threads.map(make, range(8))) == [WANTED] * 8
    assert not list(cache.folder().glob(f"{dmc_render_quality.SCRATCH}*"))


def test_a_scratch_folder_may_go_while_it_is_looked_at(base, monkeypatch):
    gone = cache.folder() / f"{dmc_render_quality.SCRATCH}gone"
    monkeypatch.setattr(pathlib.Path, "glob", lambda *_: [gone])
    assert models(base) == WANTED


def test_a_full_disk_is_told(base, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        models(base)
