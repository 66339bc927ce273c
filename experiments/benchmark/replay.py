"""The replay: 50 x 50 chunks of 64x64x3 (30.7 MB), episodes written in place, beside a plain copy of as many bytes."""

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from experiments.benchmark import rivals
from experiments.benchmark.data import SPEC, random_steps
from wmjax import replay
from wmjax.report.benchmark import Work
from wmjax.types import Array, Step

CAPACITY = dict(quick=2_000, paper=20_000)  # rows of each of 4 environments
ENVS, EPISODE = 4, 251


def works(preset: str) -> Iterator[Work]:
    """Sampling, adding one row, adding an episode; the copies they should be as fast as."""
    example = rows(1)
    example = jax.tree.map(lambda x: x[0], example)
    held = [replay.init(CAPACITY[preset], ENVS, example)]  # the newest ring: donated, then replaced
    add = jax.jit(replay.add, donate_argnums=0)
    extend = jax.jit(replay.extend, donate_argnums=0)
    episode = rows(EPISODE)

    def write(function: Callable, steps: Step) -> Array:
        held[0] = function(held[0], steps)
        return held[0].cursor

    for _ in range(-(-CAPACITY[preset] // EPISODE)):
        write(extend, episode)
    key, megabytes = jax.random.key(0), float(50 * 50 * np.prod(SPEC.obs_shape) / 1e6)

    def read(function: Callable) -> Step:
        return function(held[0], key)

    samples = []
    for name, function in (("sample", replay.sample), ("sample within episodes", replay.sample_within_episodes)):
        sample = functools.partial(read, jax.jit(functools.partial(function, batch=50, length=50)))
        samples.append(Work(f"{name}, 50 x 50", sample, {"samples": 50, "MB": megabytes}))
    yield from samples
    if rivals.installed("flashbax"):
        yield rivals.flashbax_sample(samples[0], episode, CAPACITY[preset], 50, 50)
    images = jax.device_put(np.zeros((50, 50, *SPEC.obs_shape), np.uint8))
    copy = jax.jit(lambda x: x + np.uint8(1))
    yield Work("copy of the sample's bytes", lambda: copy(images), {"MB": images.nbytes / 1e6})
    step = jax.device_put(example)
    yield Work(f"add, {ENVS} envs", lambda: write(add, step), {"rows": ENVS})
    steps = jax.device_put(episode)
    yield Work(
        f"extend, {EPISODE} x {ENVS}",
        lambda: write(extend, steps),
        {"rows": EPISODE * ENVS, "MB": episode.obs.nbytes / 1e6},
    )


def rows(time: int) -> Step:
    """Random rows, Step [T, E], of numpy arrays; the first begins an episode."""
    steps = random_steps(time, ENVS)
    steps.is_first[0] = True
    return steps
