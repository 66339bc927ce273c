"""What the device is and whether jax uses it as it should: as the doctor sees it, and by small programs."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.memory import UNKNOWN, figures
from wmjax import backend, doctor
from wmjax.report.benchmark import Finding

SIDE = 512  # of the product whose rounding is measured
# Relative error of a product of random matrices, below which they were multiplied with that many digits.
PRECISIONS = ((1e-5, "float32"), (1e-3, "TF32"), (np.inf, "bfloat16"))


def works(preset: str) -> Iterator[Finding]:
    """The same with every preset."""
    yield Finding("devices", devices)
    yield Finding("platform", platform)
    yield Finding("memory", memory)
    yield Finding("precision of products", precision)
    yield Finding("donated buffers", donation)


def devices() -> dict[str, Any]:
    """Which devices there are, and whether jax sees them: the doctor's point."""
    return figures_of(doctor.devices())


def figures_of(point: doctor.Point) -> dict[str, Any]:
    """A doctor's Point as figures."""
    failed = dict(failed=f"{point.result}; type: {point.mend}") if point.mend else {}
    return dict(told=point.result) | failed


def platform() -> dict[str, Any]:
    """Whether programs run where it was asked for, and the platform's own version."""
    config: Any = jax.config  # whose attributes mypy does not know
    asked, found = config.jax_platforms or "", jax.devices()[0].platform
    first = {"cuda": "gpu", "rocm": "gpu"}.get(asked.split(",")[0], asked.split(",")[0])
    version = " ".join(str(jax.devices()[0].client.platform_version).split())
    row = dict(told=f"{found}, {doctor.short(version)}; asked for: JAX_PLATFORMS={asked or '(none: the best)'}")
    return row if first in ("", found) else row | dict(failed=f"JAX_PLATFORMS={asked}, but programs run on {found}")


def memory() -> dict[str, Any]:
    """What jax may take of the device's memory, and what is left for drawing on the same card."""
    known = figures(jax.local_devices()[0], ("limit", "in_use"))
    points = [figures_of(point) for point in doctor.shared_card()]
    return known | (points[0] if points else {} if known else UNKNOWN)


def precision() -> dict[str, Any]:
    """With how many digits matrices are multiplied where nothing is asked for, by the error of one product."""
    config: Any = jax.config
    a, b = np.random.default_rng(0).normal(size=(2, SIDE, SIDE))
    exact = a.astype(np.float32).astype(np.float64) @ b.astype(np.float32).astype(np.float64)
    found = np.asarray(jax.jit(jnp.matmul)(a.astype(np.float32), b.astype(np.float32)))
    error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    setting = config.jax_default_matmul_precision or "default"
    return dict(told=f"{digits(error)} (jax_default_matmul_precision: {setting})", error=error)


def digits(error: float) -> str:
    """The format whose rounding gives such an error."""
    return next(name for most, name in PRECISIONS if error < most)


def donation() -> dict[str, Any]:
    """Whether a donated argument's memory becomes the result's."""
    given = jnp.zeros((SIDE, SIDE))
    pointer = given.unsafe_buffer_pointer()
    result = jax.block_until_ready(jax.jit(lambda x: x + 1, donate_argnums=0)(given))
    if given.is_deleted() and result.unsafe_buffer_pointer() == pointer:
        return dict(told="reused")
    return dict(failed=f"not reused by {backend.name()}: a state that is donated takes its memory twice")
