"""What the config files of all experiments share: dataclasses as ConfigDicts, presets by name, checks of counts."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from wmjax.types import UsageError


def block(instance: Any) -> ConfigDict:
    """A dataclass as a ConfigDict."""
    return ConfigDict(dataclasses.asdict(instance))


def split(argument: str, presets: Iterable[str], subject: str) -> tuple[str, str]:
    """The two halves of "subject,preset"; UsageError where one is missing or there is no such preset.

    Args: presets: all by name; subject: what stands before the comma, for the message.
    """
    name, comma, preset = argument.partition(",")
    if not name or not comma or preset not in presets:
        raise UsageError(f"config {argument!r}: give <{subject}>,<preset> with preset one of {', '.join(presets)}")
    return name, preset


def tasks(names: str, family: str) -> str:
    """Full names of the tasks "first+second+...": those that name no family are of this one, "family:first"."""
    return "+".join(name if ":" in name else f"{family}:{name}" for name in names.split("+"))


def check_counts(instance: Any, name: str) -> None:
    """Raises UsageError unless every whole number of a dataclass, in tuples too, is at least 1, and no tuple is empty.

    A tuple whose default is empty may be. name: of the dataclass in the config, for the message.
    """
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if value == () != field.default:
            raise UsageError(f"{name}.{field.name}=(): give at least one value")
        for each in value if isinstance(value, tuple) else (value,):
            if type(each) is int and each < 1:
                raise UsageError(f"{name}.{field.name}={value}: must be at least 1")


def config_flag(values: flags.FlagValues, argv: list[str], text: str) -> None:
    """Defines --config=FILE:ARGUMENT and its overrides in absl's FlagValues `values`; None unless given.

    Args: argv: the command line with the overrides; text: for its help.
    """
    config_flags.DEFINE_config_file("config", help_string=text, flag_values=values, sys_argv=argv)
