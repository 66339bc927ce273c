"""The platform that programs are made for, asked here alone: CPUs and accelerators have paths of their own."""

import contextlib
from collections.abc import Iterator

import jax

_other: list[str] = []  # that of `as_on`, if any


def name() -> str:
    """The platform whose paths a program takes: cpu, gpu or tpu; jax's default one outside of `as_on`."""
    return _other[-1] if _other else jax.default_backend()


def is_cpu() -> bool:
    """Whether programs take the paths of CPUs."""
    return name() == "cpu"


@contextlib.contextmanager
def as_on(platform: str) -> Iterator[None]:
    """What is traced inside takes the paths of a platform, wherever it runs: to compare them, or to export.

    jax keeps traces of inner functions, so its caches are cleared on both ways.
    """
    if platform == name():
        yield
        return
    jax.clear_caches()
    _other.append(platform)
    try:
        yield
    finally:
        _other.pop()
        jax.clear_caches()
