"""What every main does around its loop: flags, config blocks to dataclasses, and one-line endings.

exit 0   done            exit 2   bad input, no driver, disk full          exit 3   NaN or infinity in training
exit 75  stopped by a signal, in order: the same command goes on
"""

import dataclasses
import difflib
import errno
import math
import os
import runpy
import sys
import types
import typing

from absl import flags

from wmjax.run import stop
from wmjax.types import NonFiniteError, UsageError

GO_ON = os.EX_TEMPFAIL  # 75


def run(main, argv):
    """Calls main(argv) and returns the exit code; what the user can mend ends in one line and without a traceback."""
    try:
        main(argv)
    except UsageError as error:
        return fail(error, 2)
    except NonFiniteError as error:
        return fail(error, 3)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return fail(f"disk full while writing {error.filename}; the last checkpoint is untouched", 2)
    except KeyboardInterrupt:
        return fail("interrupted; the same command resumes from the last checkpoint", 130)
    except stop.Stopped as stopped:
        print(f"stopped by {stopped}: the same command goes on", file=sys.stderr)
        return GO_ON
    finally:
        stop.forget()
    return 0


def fail(message, code):
    """Prints one line and returns the code."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def define_minutes(text):
    """The flag --minutes of a main, None where it is not given. text: for its help."""
    flags.disclaim_key_flags()  # it is the main's
    flag = flags.DEFINE_float("minutes", None, text)
    allowed = lambda value: value is None or 0 < value < math.inf
    flags.register_validator("minutes", allowed, "must be above 0, and finite")
    return flag


def parse_flags(argv):
    """Reads absl flags, `--config=FILE:ARGUMENT` and its `--config.key=value` overrides among them.

    Raises: UsageError for unknown flags, a config file that is not there, config keys that do not exist (with the
      nearest that do), values of a wrong type.
    """
    for arg in argv[1:]:
        if arg.lstrip("-").startswith("config="):
            overrides = [each for each in argv[1:] if each.lstrip("-").startswith("config.")]
            check_keys(overrides, load_config(arg.partition("=")[2]))
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    if len(rest) > 1:
        raise UsageError(f"unexpected argument {rest[1]!r}: settings are given as --config.key=value")


def load_config(place):
    """The ConfigDict that "FILE:ARGUMENT" names; UsageError if there is no such file, or as its get_config says."""
    path, _, argument = place.partition(":")
    if not os.path.isfile(path):
        raise UsageError(f"config file {path!r} does not exist: give experiments/<paper>/config.py:<task>,<preset>")
    return runpy.run_path(path)["get_config"](argument)


def check_keys(overrides, config):
    """Raises UsageError unless every --config.a.b=value names a key of `config`, a ConfigDict."""
    for override in overrides:
        name = override.lstrip("-").partition("=")[0].removeprefix("config.")
        block, path = config, name.split(".")
        for depth, key in enumerate(path):
            if not hasattr(block, "keys") or key not in block:
                where = ".".join(["config", *path[:depth]])
                allowed = ", ".join(sorted(block)) if hasattr(block, "keys") else "it is a single value"
                near = difflib.get_close_matches(key, sorted(block), n=1) if hasattr(block, "keys") else []
                hint = f"did you mean {near[0]}? " if near else ""
                raise UsageError(f"config.{name} does not exist: {hint}{where} has {allowed}")
            block = block[key]


def build(cls, block, name):
    """A config block as its frozen dataclass; the only way from a ConfigDict into the library.

    Args: cls: a dataclass; block: mapping of its fields; name: of the block, for messages.
    Raises: UsageError for unknown or missing keys and values of a wrong type; whatever cls itself refuses.
    """
    values, hints = dict(block), typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise UsageError(f"config.{name}.{key} does not exist: choose from {', '.join(known)}")
    missing = [field.name for field in dataclasses.fields(cls) if is_required(field) and field.name not in values]
    if missing:
        raise UsageError(f"config.{name}.{missing[0]} is missing")
    return cls(**{key: convert(value, hints[key], f"config.{name}.{key}") for key, value in values.items()})


def is_required(field):
    """Whether a dataclass field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert(value, hint, name):
    """`value` as type `hint` (bool, int, float, str, tuple[int, ...], or one of them | None), or UsageError."""
    if isinstance(hint, types.UnionType):
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return None if value is None else convert(value, inner[0], name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)):
            raise UsageError(f"{name}={value!r}: must be a tuple such as (1, 2)")
        return tuple(convert(each, typing.get_args(hint)[0], name) for each in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"{name}={value!r}: must be of type {hint.__name__}")
    return value


def use_compilation_cache():
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    import jax

    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "wmjax", "jax")
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
