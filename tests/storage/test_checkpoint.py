"""Checkpoints and replay rows: what was saved comes back, half-written ones are skipped, a full disk loses nothing."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wmjax.report import metrics
from wmjax.storage import checkpoint
from wmjax.types import LearnerState, Step, UsageError


def make_state(seed=0):
    weights = {"w": jax.random.normal(jax.random.PRNGKey(seed), (3, 4)), "b": jnp.ones(4, jnp.bfloat16)}
    optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3))
    return {
        "learner": LearnerState(weights, optimizer.init(weights), jnp.int32(seed)),
        "raw_key": jax.random.PRNGKey(seed),
        "typed_key": jax.random.key(seed),
        "many_keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        "episodes": seed,
        "minutes": 0.1,
        "name": "a",
        "nothing": None,
        "counts": np.array([2**40 + seed, -1]),
        "unsigned": np.array([2**63], np.uint64),
        "double": np.float64(0.1),
        "empty": np.zeros((0, 3), np.float32),
        "env": {"seed": 3, "actions": [np.ones((seed + 1, 2)), np.zeros(1, np.uint8)], "big": 2**100, "none": {}},
    }


def make_template():
    return make_state(7) | {"env": checkpoint.AS_SAVED}


def as_numpy(leaf):
    if not hasattr(leaf, "dtype"):
        return leaf
    return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
        np.testing.assert_array_equal(as_numpy(a), as_numpy(b))


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def test_everything_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path, 12, make_state(5))
    step, state = checkpoint.restore_latest(tmp_path, make_template())
    assert step == 12
    assert_same(state, make_state(5))


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.restore_latest(tmp_path, make_template()) is None
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint.restore_latest(tmp_path, make_template()) is None


def test_restored_arrays_lie_where_those_of_the_template_lie(tmp_path):
    spread = jax.sharding.NamedSharding(jax.make_mesh((len(jax.devices()),), ("data",)), jax.P("data"))
    rows = np.arange(8 * len(jax.devices()), dtype=np.float32)
    whole = jax.sharding.NamedSharding(spread.mesh, jax.P())
    keys = [jax.device_put(jax.random.key(seed), whole) for seed in (1, 2)]
    checkpoint.save(tmp_path, 1, {"spread": jax.device_put(rows, spread), "free": jnp.arange(3), "key": keys[0]})
    template = {"spread": jax.device_put(rows * 0, spread), "free": jnp.zeros(3, jnp.int32), "key": keys[1]}
    _, state = checkpoint.restore_latest(tmp_path, template)
    assert state["spread"].sharding == spread and state["spread"].committed
    assert state["key"].sharding == whole and state["key"] == keys[0]
    assert not state["free"].committed
    np.testing.assert_array_equal(state["spread"], rows)


def test_the_newest_is_restored_and_old_ones_go(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"n": step}, keep=2)
    assert names(tmp_path) == ["000000000002", "000000000010"]
    assert checkpoint.restore_latest(tmp_path, {"n": 0}) == (10, {"n": 10})


def test_the_same_step_again_is_newer(tmp_path):
    for n in range(1, 13):
        checkpoint.save(tmp_path, 5, {"n": n})
        assert checkpoint.restore_latest(tmp_path, {"n": 0}) == (5, {"n": n})
    assert names(tmp_path) == ["000000000005-11", "000000000005-12"]


def largest_file(folder):
    return max((p for p in (folder / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:-3])


def flip_byte(folder):
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_value(folder):
    path = folder / "manifest.json"
    text = path.read_text()
    assert '"value": 2' in text
    path.write_text(text.replace('"value": 2', '"value": 3'))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "half-written"),
        (lambda folder: (folder / "manifest.json").write_text('{"sha'), "damaged file manifest.json"),
        (change_value, "damaged file manifest.json"),
        (truncate, "damaged file state/"),
        (flip_byte, "damaged file state/"),
        (lambda folder: largest_file(folder).unlink(), "missing file state/"),
    ],
)
def test_a_bad_checkpoint_is_skipped_with_a_warning(tmp_path, capfd, harm, told):
    for n in (1, 2):
        checkpoint.save(tmp_path, n, {"n": n, "w": np.arange(500.0) * n})
    harm(tmp_path / "checkpoints" / "000000000002")
    step, state = checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(500)})
    assert (step, state["n"]) == (1, 1)
    np.testing.assert_array_equal(state["w"], np.arange(500.0))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "passing over" in lines[0] and "000000000002" in lines[0] and told in lines[0]
    checkpoint.save(tmp_path, 2, {"n": 4, "w": np.zeros(500)})  # the run goes on and reaches the same step
    assert checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(500)})[1]["n"] == 4
    assert capfd.readouterr().err == ""


def test_a_damaged_later_one_does_not_push_out_the_good_ones(tmp_path):
    for n in (1, 2, 3):
        checkpoint.save(tmp_path, n, {"n": n, "w": np.arange(500.0)}, keep=3)
    flip_byte(tmp_path / "checkpoints" / "000000000002")
    flip_byte(tmp_path / "checkpoints" / "000000000003")
    checkpoint.save(tmp_path, 1, {"n": 11, "w": np.arange(500.0)}, keep=1)
    assert checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(500)})[1]["n"] == 11


def test_a_kill_in_the_first_save_starts_afresh_but_a_lost_run_does_not(tmp_path, capfd):
    checkpoint.save(tmp_path, 1, {"n": 1})
    (tmp_path / "checkpoints" / "000000000001" / "manifest.json").unlink()
    assert checkpoint.restore_latest(tmp_path, {"n": 0}) is None
    assert "half-written" in capfd.readouterr().err
    for n in (1, 2):
        checkpoint.save(tmp_path, n, {"n": n, "w": np.arange(500.0)})
        flip_byte(tmp_path / "checkpoints" / f"{n:012d}")
    with pytest.raises(UsageError, match="no good checkpoint.*000000000002.*000000000001"):
        checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(500)})


def training_beside(monkeypatch, tmp_path, *, before, times=1):
    """Lets a training save its next checkpoint, and delete the one before, just before the reader calls `before`."""
    harmless, steps = getattr(checkpoint, before), iter(range(2, 2 + times))

    def harmed(*args):
        if n := next(steps, None):
            checkpoint.save(tmp_path, n, {"n": n, "w": np.arange(500.0) * n}, keep=1)
        return harmless(*args)

    monkeypatch.setattr(checkpoint, before, harmed)


@pytest.mark.parametrize("before", ["_verify", "_load"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_checkpoint_that_a_training_deletes_under_the_reader(tmp_path, monkeypatch, capfd, before, times):
    checkpoint.save(tmp_path, 1, {"n": 1, "w": np.arange(500.0)})
    training_beside(monkeypatch, tmp_path, before=before, times=times)
    step, state = checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(500)})
    assert step == state["n"] == 1 + times
    np.testing.assert_array_equal(state["w"], np.arange(500.0) * step)
    assert capfd.readouterr().err == ""


def test_a_training_that_is_always_faster_ends_the_search(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"n": 1, "w": np.arange(500.0)})
    training_beside(monkeypatch, tmp_path, before="_load", times=100)
    with pytest.raises(UsageError, match="no good checkpoint.*deleted while it was read"):
        checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(500)})
    assert names(tmp_path) == [f"{1 + checkpoint.TRIES:012d}"]


def test_what_cannot_be_read_though_it_is_whole_is_a_bug(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"n": 1})
    monkeypatch.setattr(checkpoint, "_load", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        checkpoint.restore_latest(tmp_path, {"n": 0})


@pytest.mark.parametrize("beside", [True, False])
def test_a_training_beside_may_be_writing_its_newest(tmp_path, monkeypatch, capfd, beside):
    for n in (1, 2):
        checkpoint.save(tmp_path, n, {"n": n})
    (tmp_path / "checkpoints" / "000000000002" / "manifest.json").unlink()
    monkeypatch.setattr(checkpoint, "is_running_elsewhere", lambda _: beside)
    assert checkpoint.restore_latest(tmp_path, {"n": 0}) == (1, {"n": 1})
    assert ("half-written" in capfd.readouterr().err) != beside


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ({"w": np.zeros((2, 4)), "n": 0}, r"w is float64\[2, 3\] there and float64\[2, 4\] here"),
        ({"w": np.zeros((2, 3), np.float32), "n": 0}, r"float64\[2, 3\] there and float32\[2, 3\] here"),
        ({"w": np.zeros((2, 3)), "n": 0, "m": {"x": 1}}, "lacks m.x"),
        ({"w": np.zeros((2, 3))}, "holds n, which"),
        ({"w": np.zeros((2, 3)), "n": 0.0}, "n is int there and float here"),
        ({"w": jax.random.key(0), "n": 0}, "key"),
    ],
)
def test_another_model_is_refused_in_one_line(tmp_path, template, told):
    checkpoint.save(tmp_path, 1, {"w": np.zeros((2, 3)), "n": 1})
    with pytest.raises(UsageError, match=told) as caught:
        checkpoint.restore_latest(tmp_path, template)
    assert "\n" not in str(caught.value)


def test_a_leaf_of_another_kind_is_named(tmp_path):
    with pytest.raises(TypeError, match="a.b: .*object"):
        checkpoint.save(tmp_path, 1, {"a": {"b": object()}})


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def wrapped_no_space(*args, **kwargs):
    raise ValueError("RESOURCE_EXHAUSTED: Failed to write 42 bytes: No space left on device [os_error_code='28']")


def hidden_no_space(*args, **kwargs):
    raise RuntimeError("could not write") from OSError(errno.EDQUOT, "no more")


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("_save_arrays", hidden_no_space),
        ("_save_arrays", wrapped_no_space),
        ("_save_arrays", no_space),
        ("files.atomic_write", no_space),
        ("files.sync_folder", no_space),
    ],
)
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, place, failure):
    checkpoint.save(tmp_path, 1, {"n": 1, "w": np.arange(5.0)}, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(f"wmjax.storage.checkpoint.{place}", failure)
        with pytest.raises(UsageError, match="disk full.*nothing lost, last good checkpoint is .*000000000001"):
            checkpoint.save(tmp_path, 2, {"n": 2, "w": np.arange(5.0)}, keep=1)
    assert names(tmp_path) == ["000000000001"]
    assert checkpoint.restore_latest(tmp_path, {"n": 0, "w": np.zeros(5)})[0] == 1


def test_a_full_disk_before_the_first_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.mkdir", no_space)
    with pytest.raises(UsageError, match="disk full.*no checkpoint was written yet"):
        checkpoint.save(tmp_path, 1, {"n": 1})


def make_rows(seed, length=6):
    rng = np.random.default_rng(seed)
    return Step(
        prev_action=rng.standard_normal((length, 2, 1), np.float32),
        obs=rng.integers(0, 256, (length, 2, 8, 8, 3), np.uint8),
        reward=rng.standard_normal((length, 2), np.float32),
        discount=np.ones((length, 2), np.float32),
        is_first=np.arange(length)[:, None] == np.zeros((1, 2)),
        is_last=np.zeros((length, 2), bool),
    )


def test_rows_come_back_in_order_and_equal_rows_make_equal_files(tmp_path):
    for index in range(12):
        path = checkpoint.append_rows(tmp_path, index, make_rows(index))
    again = checkpoint.append_rows(tmp_path / "again", 11, make_rows(11))
    assert path.name == "000011.npz" and path.read_bytes() == again.read_bytes()
    loaded = list(checkpoint.load_rows(tmp_path, 12))
    assert len(loaded) == 12
    for index, rows in enumerate(loaded):
        assert_same(rows, make_rows(index))


def test_a_missing_or_damaged_file_of_rows_is_named(tmp_path):
    for index in range(3):
        checkpoint.append_rows(tmp_path, index, make_rows(index))
    path = tmp_path / "replay" / "000001.npz"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 1
    for bad in (bytes(flipped), good[:-40], b"", b"not a file of rows"):
        path.write_bytes(bad)
        with pytest.raises(UsageError, match="000001.npz is damaged"):
            list(checkpoint.load_rows(tmp_path, 3))
    path.unlink()
    with pytest.raises(UsageError, match="000001.npz is missing"):
        list(checkpoint.load_rows(tmp_path, 3))


def test_later_rows_and_halves_are_dropped(tmp_path):
    checkpoint.drop_rows_from(tmp_path, 0)  # nothing there yet
    for index in range(4):
        checkpoint.append_rows(tmp_path, index, make_rows(index))
    (tmp_path / "replay" / ".000004.npz.tmp").write_bytes(b"half")
    checkpoint.drop_rows_from(tmp_path, 2)
    assert sorted(p.name for p in (tmp_path / "replay").iterdir()) == ["000000.npz", "000001.npz"]


def test_a_full_disk_when_rows_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UsageError, match="disk full: cannot write .*000000.npz"):
        checkpoint.append_rows(tmp_path, 0, make_rows(0))
    assert list((tmp_path / "replay").iterdir()) == []


class Killed(BaseException):
    """Stands for kill -9: nothing in the library catches it."""


def make_dying(function, at, calls):
    def call(*args):
        calls[0] += 1
        if calls[0] == at:
            raise Killed
        return function(*args)

    return call


def run_loop(workdir):
    """A run of five iterations that resumes; returns its final array."""
    workdir.mkdir(exist_ok=True)
    state = {"w": np.zeros(50), "i": 0, "offset": 0}
    found = checkpoint.restore_latest(workdir, state)
    state = found[1] if found else state
    checkpoint.drop_rows_from(workdir, state["i"])
    assert len(list(checkpoint.load_rows(workdir, state["i"]))) == state["i"]
    writer = metrics.MetricsWriter(workdir, state["offset"])
    for i in range(state["i"], 5):
        checkpoint.append_rows(workdir, i, make_rows(i))
        draw = np.random.default_rng(i).standard_normal(50)
        writer.write({"env_steps": 3 * i, "w": draw.sum()})
        state = {"w": state["w"] + draw, "i": i + 1, "offset": writer.offset}
        if i % 2 == 0:
            checkpoint.save(workdir, i, state)
    return state["w"]


def contents(workdir):
    files = [workdir / "metrics.jsonl", *sorted((workdir / "replay").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def test_a_run_killed_at_every_write_ends_like_one_never_killed(tmp_path, monkeypatch):
    whole = run_loop(tmp_path / "whole")
    kills = 0
    for at in range(1, 60):  # each start dies one write later than the one before it
        calls = [0]
        with monkeypatch.context() as patch:
            for name in ("fsync", "replace"):
                patch.setattr(os, name, make_dying(getattr(os, name), at, calls))
            try:
                end = run_loop(tmp_path / "killed")
                break
            except Killed:
                kills += 1
    assert kills > 20
    np.testing.assert_array_equal(end, whole)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
