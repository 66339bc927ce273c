"""Checks that the dataclasses of settings share; each raises a UsageError of one line, "<block> <name> <value>: ...".

Arguments of all: config, a dataclass; block: what messages call its settings, such as "model"; names of fields.
"""

from collections.abc import Collection
from typing import Any

from wmjax.types import UsageError


def one_of(config: Any, block: str, **allowed: Collection[Any]) -> None:
    """Raises unless each field has one of its allowed values. allowed: {name: values}."""
    for name, values in allowed.items():
        if getattr(config, name) not in values:
            choices = ", ".join(map(str, values))
            raise UsageError(f"{block} {name} {getattr(config, name)!r}: choose one of {choices}")


def above_zero(config: Any, block: str, *names: str) -> None:
    """Raises unless each number is above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UsageError(f"{block} {name} {getattr(config, name)}: must be above 0")


def not_negative(config: Any, block: str, *names: str) -> None:
    """Raises unless each number is 0 or more."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise UsageError(f"{block} {name} {getattr(config, name)}: must be 0 or more")


def between_0_and_1(config: Any, block: str, *names: str) -> None:
    """Raises unless each number is between 0 and 1, both among them."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{block} {name} {getattr(config, name)}: must be between 0 and 1")


def at_least_one(config: Any, block: str, *names: str) -> None:
    """Raises unless each number is at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise UsageError(f"{block} {name} {getattr(config, name)}: must be at least 1")


def widths(config: Any, block: str, *names: str) -> None:
    """Raises unless each tuple holds at least one width, all of them above 0."""
    for name in names:
        if not getattr(config, name) or min(getattr(config, name)) < 1:
            raise UsageError(f"{block} {name} {getattr(config, name)}: give at least one width, each above 0")
