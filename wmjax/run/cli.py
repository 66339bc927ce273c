"""What every main does around its work: flags, config blocks to dataclasses, one line and a code at the end.

exit 0   done            exit 2   bad input, no driver, disk or memory full      exit 3   NaN or infinity in training
exit 75  stopped by a signal, in order: the same command goes on
"""

import dataclasses
import errno
import itertools
import math
import os
import pathlib
import re
import runpy
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from wmjax import console
from wmjax.envs.check import nearest
from wmjax.run import help_page, paths, processes, stop
from wmjax.types import NonFiniteError, UsageError

NOT_FINITE, GO_ON = 3, os.EX_TEMPFAIL  # exit codes; 75
LARGEST = 2**31 - 1  # whole number of a config: counters and sizes on the device are int32
# What the operating system says of paths that a user gave.
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how XLA's errors of that begin
Settings = typing.TypeVar("Settings")  # a dataclass


def run(main: Callable[[list[str]], Any], argv: list[str]) -> int:
    """Calls main(argv) and returns the exit code; what the user can mend ends in one line and without a traceback.

    Of several processes those that fail do not return: the others must not wait for them.
    """
    console.prepare_streams()
    try:
        code = ended(main, argv)
    except Exception:
        if processes.count() == 1:
            raise
        traceback.print_exc()
        code = processes.CRASHED
    finally:
        stop.forget()
    return processes.leave(code)


def ended(main: Callable[[list[str]], Any], argv: list[str]) -> int:
    """Calls main(argv): the exit code of how it ended."""
    try:
        main(argv)
    except UsageError as error:
        return fail(error, 2)
    except NonFiniteError as error:
        return fail(error, NOT_FINITE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return fail(f"disk full while writing {error.filename}; the last checkpoint is untouched", 2)
        if error.errno in REFUSED and error.filename is not None:
            return fail(f"cannot use {error.filename}: {error.strerror}", 2)
        raise
    except RuntimeError as error:  # of which jax's own is one
        if not str(error).startswith(OUT_OF_MEMORY):
            raise
        return fail(f"no memory for these sizes; the last checkpoint is untouched: {str(error).splitlines()[0]}", 2)
    except KeyboardInterrupt:
        return fail("interrupted; the same command resumes from the last checkpoint", 130)
    except stop.Stopped as stopped:
        console.warn(f"stopped by {stopped}: the same command goes on")
        return GO_ON
    return 0


def fail(message: object, code: int) -> int:
    """Prints one line, of several processes that say the same once, and returns the code."""
    line = f"error: {' '.join(str(message).split())}"
    if not processes.is_printed_by_first(line):
        console.fail(line)
    return code


class PathParser(flags.ArgumentParser):
    """A path, as `paths.absolute` makes it of what the user wrote."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        """The absolute path; UsageError, which absl expects as a ValueError, if it is none."""
        return paths.absolute(argument)


class PathsParser(flags.ListParser):
    """Paths with commas between them."""

    syntactic_help = "paths with commas between them"

    def parse(self, argument: str | list[str]) -> list[str]:
        """The list of absolute paths; UsageError if one is none."""
        return [paths.absolute(path) for path in super().parse(argument)]


def path_flag(values: flags.FlagValues, name: str, help_text: str) -> None:
    """Defines --name=PATH in absl's FlagValues `values`; None unless given."""
    flags.DEFINE(PathParser(), name, None, help_text, flag_values=values)


def paths_flag(values: flags.FlagValues, name: str, help_text: str) -> None:
    """Defines --name=PATH,PATH,... in absl's FlagValues `values`; an empty list unless given."""
    flags.DEFINE(PathsParser(), name, [], help_text, flag_values=values)


def int_flag(
    values: flags.FlagValues, name: str, default: int | None, help_text: str, low: int, high: int = LARGEST
) -> None:
    """Defines --name=INTEGER from low to high in absl's FlagValues `values`."""
    flags.DEFINE_integer(name, default, help_text, lower_bound=low, upper_bound=high, flag_values=values)


def read_path(name: str, text: str) -> str:
    """`text` as an absolute path; UsageError that names it as `name`, such as --group, if it is none."""
    try:
        return paths.absolute(text)
    except UsageError as error:
        raise UsageError(f"{name}={text}: {error}") from error


def run_folder(options: flags.FlagValues) -> pathlib.Path:
    """--workdir of a command that looks at a run. Raises: UsageError where it is not given."""
    if options.workdir is None:
        raise UsageError("give --workdir=DIR, the folder of a run")
    return pathlib.Path(options.workdir)


def minutes_flag(values: flags.FlagValues, text: str) -> None:
    """Defines --minutes in absl's FlagValues `values`; None unless given. text: for its help."""
    flags.DEFINE_float("minutes", None, text, flag_values=values)
    allowed = lambda value: value is None or 0 < value < math.inf
    flags.register_validator("minutes", allowed, "must be above 0, and finite", flag_values=values)


def parse_flags(
    argv: list[str],
    define: Callable[[flags.FlagValues, list[str]], None],
    module: str,
    configs: types.ModuleType | None = None,
) -> Any:
    """Reads absl flags, `--config=FILE:ARGUMENT` and its `--config.key=value` overrides among them.

    Nothing outside this call is touched, so mains may be called one after the other in one process. --help, in any of
    its spellings, prints a page in place of everything else and raises SystemExit(0).

    Args:
      argv: the command line; define: (values, argv) -> None, which defines the main's flags in absl's FlagValues;
      module: the main's __name__ and configs: its module config.py, both for the page of --help.
    Returns: absl's FlagValues, whose attributes are the flags.
    Raises: UsageError for unknown flags, a config file that is not there, config keys that do not exist (with the
      nearest that do), values of a wrong type.
    """
    values = flags.FlagValues()
    define(values, argv)
    if any(re.fullmatch(r"--?(h|help|helpfull|helpshort)(=.*)?", arg) for arg in argv[1:]):
        show_help(values, module, configs)
        raise SystemExit(0)
    for name in config_names(argv[1:]):
        overrides = [arg for arg in argv[1:] if arg.startswith("-") and arg.lstrip("-").startswith("config.")]
        check_keys(overrides, load_config(name))
    try:
        rest = values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    if len(rest) > 1:
        raise UsageError(f"unexpected argument {rest[1]!r}: settings are given as --config.key=value")
    return values


def config_names(args: Sequence[str]) -> Iterator[str]:
    """The values of every --config=VALUE and --config VALUE among the words of a command line."""
    for arg, following in itertools.pairwise([*args, ""]):
        if re.match(r"--?config(=|$)", arg):
            yield arg.partition("=")[2] if "=" in arg else following


def show_help(values: flags.FlagValues, module: str, configs: types.ModuleType | None) -> None:
    """Prints the page of --help. values: FlagValues; the rest as in `parse_flags`."""
    defined = [values[name] for name in values]
    described = [(flag.name, flag.default, flag.help, flag.parser.syntactic_help) for flag in defined]
    console.say(help_page.page(sys.modules[module].__doc__ or "", described, configs))


def load_config(name: str) -> Any:
    """The ConfigDict that "FILE:ARGUMENT" names; UsageError if there is no such file, or it fails to make one."""
    path, _, argument = name.partition(":")
    if not os.path.isfile(path):
        raise UsageError(f"config file {path!r} does not exist: give experiments/<paper>/config.py:<task>,<preset>")
    try:
        config = runpy.run_path(path)["get_config"](argument)
    except UsageError:
        raise
    except Exception as error:  # whatever a user's file may raise
        file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error}, at {file}:{line}"
        raise UsageError(f"config file {path!r}: no get_config(argument) that returns a ConfigDict: {why}") from error
    if not hasattr(config, "keys"):
        raise UsageError(f"config file {path!r}: get_config returns a {type(config).__name__}, not a ConfigDict")
    return config


def check_keys(overrides: Iterable[str], config: Any) -> None:
    """Raises UsageError unless every --config.a.b=value names a key of `config`, a ConfigDict."""
    for override in overrides:
        name = override.lstrip("-").partition("=")[0].removeprefix("config.")
        block, path = config, name.split(".")
        for depth, key in enumerate(path):
            if not hasattr(block, "keys") or key not in block:
                where = ".".join(["config", *path[:depth]])
                allowed = ", ".join(sorted(block)) if hasattr(block, "keys") else "it is a single value"
                near = nearest(key, sorted(block)) if hasattr(block, "keys") else []
                hint = f"did you mean {near[0]}? " if near else ""
                raise UsageError(f"config.{name} does not exist: {hint}{where} has {allowed}")
            block = block[key]


def check_top(config: Mapping[str, Any], settings: Mapping[str, type], blocks: Iterable[str]) -> None:
    """Raises UsageError unless a config has what its experiment reads, as one of another experiment has not.

    Args: config: of a run; settings: types by name, of those that stand alone; blocks: names of blocks of settings.
    """
    for name in (*settings, *blocks):
        if name not in config:
            raise UsageError(
                f"config.{name} is missing, so it is the config of something else: it has {', '.join(config)}"
            )
    for name, kind in settings.items():
        convert(config[name], kind, f"config.{name}")
    for name in blocks:
        if not hasattr(config[name], "keys"):
            raise UsageError(f"config.{name}={config[name]!r}: must be a block of settings")


def build(cls: type[Settings], block: Mapping[str, Any], name: str) -> Settings:
    """A config block as its frozen dataclass; the only way from a ConfigDict into the library.

    Args: cls: a dataclass; block: mapping of its fields; name: of the block, for messages.
    Raises: UsageError for unknown or missing keys and values of a wrong type; whatever cls itself refuses.
    """
    values, hints, fields = dict(block), typing.get_type_hints(cls), dataclasses.fields(typing.cast(Any, cls))
    known = [field.name for field in fields]
    for key in values:
        if key not in known:
            raise UsageError(f"config.{name}.{key} does not exist: choose from {', '.join(known)}")
    missing = [field.name for field in fields if is_required(field) and field.name not in values]
    if missing:
        raise UsageError(f"config.{name}.{missing[0]} is missing")
    return cls(**{key: convert(value, hints[key], f"config.{name}.{key}") for key, value in values.items()})


def is_required(field: dataclasses.Field) -> bool:
    """Whether a dataclass field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert(value: Any, hint: Any, name: str) -> Any:
    """`value` as type `hint` (bool, int, float, str, tuple[int, ...], or one of them | None), or UsageError."""
    if isinstance(hint, types.UnionType):
        inner = [member for member in typing.get_args(hint) if member is not type(None)]
        return None if value is None else convert(value, inner[0], name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)):
            raise UsageError(f"{name}={value!r}: must be a tuple such as (1, 2)")
        return tuple(convert(item, typing.get_args(hint)[0], name) for item in value)
    if hint is float and type(value) is int and abs(value) <= LARGEST:
        value = float(value)
    if type(value) is not hint:
        raise UsageError(f"{name}={value!r}: must be of type {hint.__name__}")
    if type(value) is int and abs(value) > LARGEST:
        raise UsageError(f"{name}={value}: must be from {-LARGEST} to {LARGEST}")
    if type(value) is float and not math.isfinite(value):
        raise UsageError(f"{name}={value}: must be finite")
    return value


def use_jax() -> None:
    """Prepares jax for a main, before its first array, in whatever surroundings it was started.

    float64 is off: models and losses compute in float32, and runs are equal wherever they are started. Compiled
    programs are kept between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder.

    Raises: UsageError if JAX_PLATFORMS names a platform that is not there.
    """
    import jax

    from wmjax.envs.cache import user_cache

    config: Any = jax.config  # whose attributes mypy does not know
    if config.jax_enable_x64:
        console.warn("warning: JAX_ENABLE_X64 is not used: everything here computes in float32")
        config.update("jax_enable_x64", False)
    cache = user_cache()
    if not config.jax_compilation_cache_dir and cache is not None:
        config.update("jax_compilation_cache_dir", str(cache / "wmjax" / "jax"))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts where the platform's package is not installed
        why = str(error) or "its package is missing"
        raise UsageError(f"JAX_PLATFORMS={config.jax_platforms or ''}: no device to compute on: {why}") from error
