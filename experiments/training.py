"""The command line of every training main and of its doctor: config, working folder and time limit."""

import functools
import pathlib
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from experiments.presets import config_flag
from wmjax.run import cli, processes
from wmjax.storage import files
from wmjax.types import UsageError


class Command(NamedTuple):
    """The command line of a training main."""

    config: ConfigDict
    folder: pathlib.Path  # absolute
    minutes: float | None  # the wall-clock limit


def read_command(argv: list[str], module: str, configs: Any) -> Command:
    """The Command of argv; jax is ready after it, and of several processes this one has joined the others.

    Args: argv: the command line; module: the main's __name__; configs: its module config.py, whose USAGE tells what
      --config takes.
    Raises: UsageError as `cli.parse_flags` and `cli.use_jax`; SystemExit(0) after --help.
    """
    options = cli.parse_flags(argv, functools.partial(define_flags, configs.USAGE), module, configs)
    if options.config is None or options.workdir is None:
        raise UsageError(f"give --config={configs.USAGE} and --workdir=DIR")
    files.check_place(options.workdir)
    if options.distributed != "off":
        processes.start(options.distributed)
    cli.use_jax()
    return Command(options.config, pathlib.Path(options.workdir), options.minutes)


def define_flags(usage: str, values: flags.FlagValues, argv: list[str]) -> None:
    """Defines --config, --workdir, --minutes and --distributed in absl's FlagValues `values`."""
    config_flag(values, argv, usage)
    cli.path_flag(values, "workdir", "folder of the run")
    cli.minutes_flag(values, "wall-clock limit: after so many minutes a last evaluation, a checkpoint, exit code 0")
    flags.DEFINE_string("distributed", "off", f"several processes of one run: {processes.FORMS}", flag_values=values)


def read_doctor_command(argv: list[str], module: str, configs: Any) -> tuple[ConfigDict, str | None]:
    """(config, --workdir or None) of a doctor's command line. Args: as of `read_command`."""
    options = cli.parse_flags(argv, define_doctor_flags, module, configs)
    if options.config is None:
        raise UsageError(f"give --config={configs.USAGE}")
    if options.workdir:
        files.check_place(options.workdir)
    return options.config, options.workdir


def define_doctor_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines --config and --workdir in absl's FlagValues `values`."""
    config_flag(values, argv, "FILE:ARGUMENT of a run, with overrides --config.key=value")
    cli.path_flag(values, "workdir", "folder of the run; none: the present one")
