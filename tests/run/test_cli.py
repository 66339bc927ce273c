"""What surrounds a main: config blocks, exit codes, and the first number that is not finite."""

import contextlib
import dataclasses
import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from tests import mains as started
from wmjax.planners import CEMConfig
from wmjax.run import cli, devices
from wmjax.train import check_finite
from wmjax.types import NonFiniteError, UsageError


@dataclasses.dataclass(frozen=True)
class Block:
    steps: int
    rate: float = 0.5
    name: str = "a"
    fast: bool = False
    widths: tuple[int, ...] = (1, 2)
    limit: float | None = None


def build(**values):
    return cli.build(Block, {"steps": 3, **values}, "train")


def test_a_block_becomes_its_dataclass():
    assert build() == Block(3)
    built = build(rate=2, name="b", fast=True, widths=[4, 5], limit=1)
    assert built == Block(3, 2.0, "b", True, (4, 5), 1.0)
    assert [type(x) for x in (built.rate, built.limit, built.widths)] == [float, float, tuple]
    assert build(limit=None).limit is None and build(widths=()).widths == ()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (dict(stepz=3), r"config\.train\.stepz does not exist: choose from steps, rate, name"),
        (dict(steps=3.0), r"config\.train\.steps=3\.0: must be of type int"),
        (dict(steps=True), r"config\.train\.steps=True: must be of type int"),
        (dict(steps=None), r"config\.train\.steps=None: must be of type int"),
        (dict(rate="0.1"), r"config\.train\.rate='0\.1': must be of type float"),
        (dict(rate=True), r"config\.train\.rate=True: must be of type float"),
        (dict(name=1), r"config\.train\.name=1: must be of type str"),
        (dict(fast=1), r"config\.train\.fast=1: must be of type bool"),
        (dict(widths=3), r"config\.train\.widths=3: must be a tuple"),
        (dict(widths=(1, 2.5)), r"config\.train\.widths=2\.5: must be of type int"),
        (dict(limit="x"), r"config\.train\.limit='x': must be of type float"),
        (dict(limit=float("nan")), r"config\.train\.limit=nan: must be finite"),
        (dict(rate=float("inf")), r"config\.train\.rate=inf: must be finite"),
        (dict(rate=10**400), r"config\.train\.rate=10+: must be of type float"),
        (dict(steps=2**31), r"config\.train\.steps=2147483648: must be from -2147483647 to 2147483647"),
        (dict(widths=(1, -(10**30))), r"config\.train\.widths=-10+: must be"),
    ],
)
def test_wrong_blocks_are_refused_by_name(values, named):
    with pytest.raises(UsageError, match=named):
        build(**values)


def test_a_missing_key_is_refused_by_name():
    with pytest.raises(UsageError, match=r"config\.train\.steps is missing"):
        cli.build(Block, {}, "train")


def test_what_a_component_refuses_is_passed_on():
    with pytest.raises(UsageError, match="elites 20"):
        cli.build(CEMConfig, dict(candidates=10, elites=20), "planner")


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such task:\n  walk"), 2, "error: no such task: walk"),
        (NonFiniteError("update 7: kl is not finite"), 3, "error: update 7: kl is not finite"),
        (OSError(errno.ENOSPC, "No space", "/x/y"), 2, "error: disk full while writing /x/y; the last"),
        (OSError(errno.EDQUOT, "Quota", "/x/y"), 2, "error: disk full while writing /x/y; the last"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "error: cannot use /x/y: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x/y"), 2, "error: cannot use /x/y: File name too long"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nlong"), 2, "error: no memory for these"),
        (KeyboardInterrupt(), 130, "error: interrupted; the same command resumes"),
    ],
)
def test_what_the_user_can_mend_ends_in_one_line(error, code, said, capsys):
    assert cli.run(raising(error), ["main"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(said)


def test_a_good_run_says_nothing(capsys):
    seen = []
    assert cli.run(seen.append, ["main", "--a"]) == 0
    assert seen == [["main", "--a"]] and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        OSError(errno.EACCES, "denied"),
        FileNotFoundError(errno.ENOENT, "", "/x"),
        RuntimeError("bug"),
    ],
)
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raising(error), ["main"])


def count_flag(values, argv):
    flags.DEFINE_integer("count", 1, "a number", flag_values=values)


def test_flags_are_read_anew_by_every_call():
    assert cli.parse_flags(["main", "--count=4"], count_flag, __name__).count == 4
    assert cli.parse_flags(["main"], count_flag, __name__).count == 1


@pytest.mark.parametrize(
    ("argument", "named"),
    [("--cuont=4", "cuont"), ("--count=four", "count.*four"), ("count", "'count'.*--config.key=value")],
)
def test_wrong_flags_are_refused_by_name(argument, named):
    with pytest.raises(UsageError, match=named):
        cli.parse_flags(["main", argument], count_flag, __name__)


def phase(**places):
    """Metrics of 4 updates; places[name] is the update where a loss, or the gradient of a parameter, goes bad."""
    metrics = {name: np.ones(4, np.float32) for name in ("loss", "grad_norm", "image_loss", "kl")}
    finite = {path: np.ones(4, bool) for path in ("decoder/kernel", "reward/bias", "reward/kernel")}
    for name, place in places.items():
        if name in metrics:
            metrics[name][place] = np.nan
        else:
            finite[name][place] = False
    metrics["grad_finite"] = finite
    return metrics


def test_finite_phases_pass():
    check_finite(phase(), 100)


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({"kl": 2, "loss": 2, "grad_norm": 2, "decoder/kernel": 2}, "update 102: kl is"),
        (dict(image_loss=slice(1, 4), kl=3), "update 101: image_loss is"),
        ({"reward/bias": 3, "grad_norm": 3}, "update 103: gradient of reward/bias is"),
        ({"decoder/kernel": 0}, "update 100: gradient of decoder/kernel is"),
        (dict(grad_norm=1), "update 101: grad_norm is"),
    ],
)
def test_the_first_bad_update_and_tensor_are_named(places, named):
    with pytest.raises(NonFiniteError, match=named + " not finite; training stopped"):
        check_finite(phase(**places), 100)


def test_infinities_are_found_too():
    metrics = phase()
    metrics["kl"][3] = np.inf
    with pytest.raises(NonFiniteError, match="update 3: kl"):
        check_finite(metrics, 0)


@pytest.mark.parametrize("words", [["--config={}"], ["--config", "{}"], ["-config", "{}"]])
def test_keys_are_checked_however_the_config_is_given(words):
    words = [word.format("experiments/planet/config.py:fake:counter,cpu") for word in words]
    ended = started.call("planet.__main__", "--workdir=w", *words, "--config.train.bacth=1")
    assert ended.code == 2 and ended.stderr.startswith("error: config.train.bacth does not exist: did you mean batch?")
    ended = started.call("planet.__main__", "--workdir=w", "--config")
    assert ended.code == 2 and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero, at {path}:1"),
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "KeyError: 'get_config'"),
        ("def get_config(argument):\n    raise ValueError(argument)", "ValueError: fake:counter,cpu, at {path}:2"),
        ("def get_config(argument): pass", "get_config returns a NoneType, not a ConfigDict"),
    ],
)
def test_a_config_file_that_makes_no_config_is_one_line(text, told, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    ended = started.call("planet.__main__", f"--workdir={tmp_path / 'w'}", f"--config={path}:fake:counter,cpu")
    assert ended.code == 2 and ended.stderr.count("\n") == 1 and not (tmp_path / "w").exists()
    assert ended.stderr.startswith(f"error: config file '{path}': ") and told.format(path=path) in ended.stderr


TOP = dict(task="a", seed=1, train=dict(batch=2))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (TOP, ""),
        (TOP | dict(more=3), ""),
        (dict(task="a", train={}), "config.seed is missing, so .* it has task, train"),
        (dict(task="a", seed=1), "config.train is missing"),
        (TOP | dict(task=None), "config.task=None: must be of type str"),
        (TOP | dict(train="big"), "config.train='big': must be a block of settings"),
    ],
)
def test_what_a_config_must_have(config, told):
    with pytest.raises(UsageError, match=told) if told else contextlib.nullcontext():
        cli.check_top(config, dict(task=str, seed=int), ["train"])


@pytest.mark.parametrize(
    ("experiment", "other"),
    [
        ("planet", "environment_models/config.py:ball,vae,cpu"),
        ("smaller_world_models", "planet/config.py:fake:counter,cpu"),
        ("environment_models", "i2a/config.py:minipacman:hunt,model_free,cpu"),
        ("i2a", "planet/config.py:fake:counter,cpu"),
    ],
)
def test_the_config_of_another_experiment_is_refused(experiment, other, tmp_path):
    ended = started.call(f"{experiment}.__main__", f"--workdir={tmp_path / 'w'}", f"--config=experiments/{other}")
    assert ended.code == 2 and ended.stderr.count("\n") == 1 and not (tmp_path / "w").exists()
    assert " is missing, so it is the config of something else" in ended.stderr


@pytest.fixture
def settings():
    """Gives jax's settings back after a test that changes them."""
    names = ("jax_enable_x64", "jax_compilation_cache_dir", "jax_disable_jit", "jax_platforms")
    before = {name: getattr(jax.config, name) for name in names}
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_float64_is_off_in_every_main(settings, capsys):
    cli.use_jax()
    assert capsys.readouterr().err == ""
    settings.update("jax_enable_x64", True)
    cli.use_jax()
    assert jnp.zeros(1).dtype == jnp.float32
    assert capsys.readouterr().err == "warning: JAX_ENABLE_X64 is not used: everything here computes in float32\n"


@pytest.mark.parametrize(
    ("error", "why"), [(RuntimeError("Unable to\n initialize 'gpu'"), "'gpu'"), (AssertionError(), "its package")]
)
def test_a_platform_that_is_not_there_is_one_line(error, why, monkeypatch, capsys):
    monkeypatch.setattr(jax, "devices", lambda: (_ for _ in ()).throw(error))
    assert cli.run(lambda argv: cli.use_jax(), ["main"]) == 2
    told = capsys.readouterr().err
    assert (
        told.startswith("error: JAX_PLATFORMS=cpu: no device to compute on") and why in told and told.count("\n") == 1
    )


def test_programs_are_kept_where_the_user_has_a_cache(settings, monkeypatch):
    settings.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/u")
    cli.use_jax()
    assert settings.jax_compilation_cache_dir == "/home/u/.cache/wmjax/jax"


def test_copies_are_an_error_only_with_jit(settings):
    ours = np.ones(2)
    with pytest.raises(Exception, match="Disallowed host-to-device"), devices.no_transfers():
        jnp.asarray(ours) + 1
    settings.update("jax_disable_jit", True)
    with devices.no_transfers():
        jnp.asarray(ours) + 1
