"""The platform that programs are compiled for. CPUs and accelerators take different paths; all ask this module."""

import contextlib
import functools
from collections.abc import Iterator

import jax

_overrides: list[str] = []  # platforms of the `as_on` blocks that are open, the innermost last


def name() -> str:
    """The platform whose paths a program takes: cpu, gpu or tpu; jax's default one outside of `as_on`."""
    return _overrides[-1] if _overrides else jax.default_backend()


def is_cpu() -> bool:
    """Whether programs take the paths of CPUs."""
    return name() == "cpu"


@functools.cache
def acting_options() -> dict[str, str]:
    """XLA's options for programs that act: `jax.jit(..., compiler_options=...)`.

    On CPUs a planner's products are slower by XLA's YNN library than without it; updates are not, so this is no flag of
    the process. Empty where this XLA has no such option.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": ""} if jax.default_backend() == "cpu" else {}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


@contextlib.contextmanager
def as_on(platform: str) -> Iterator[None]:
    """A context in which traces take the paths of another platform: to compare them, or to export.

    jax keeps traces of inner functions, so its caches are cleared on entering and on leaving.
    """
    if platform == name():
        yield
        return
    jax.clear_caches()
    _overrides.append(platform)
    try:
        yield
    finally:
        _overrides.pop()
        jax.clear_caches()
