"""Losses and gradients of the same parameters and the same batch on the CPU and on the device, and how far they differ.

Each side takes the paths of its own platform. `highest` asks the device for products in float32, so that what is left
is the order of sums; `default` is what runs use, TF32 on recent GPUs. A difference is relative to the CPU's number.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from experiments.benchmark import agents, dream
from experiments.benchmark.data import TINY, planet, random_steps
from experiments.benchmark.rollout import GAME, TINY_MAPS
from wmjax import backend
from wmjax.models import rssm, state_space, vq_convlstm
from wmjax.models.vq_convlstm.learner import autoencoder_loss, dynamics_loss
from wmjax.models.vq_convlstm.model import make_modules
from wmjax.ops.axes import fold
from wmjax.report.benchmark import Finding
from wmjax.types import Array, Learner

TOLERANCES = dict(highest=(1e-4, 1e-3), default=(1e-2, 5e-2))  # by precision: of the loss, of the gradient's norm
CHUNKS = dict(accelerator=(16, 20), dry=(2, 3))
GAME_CHUNKS = dict(accelerator=(4, 3 + 10), dry=(2, 3 + 2))
Case = tuple[Callable[..., tuple[Array, Array]], Any, Any]  # ((state, key, batch) -> (loss, norm)), state, batch


def works(preset: str) -> Iterator[Finding]:
    """Every model in both precisions."""
    for name, make in MODELS.items():
        case = functools.cache(functools.partial(make, preset))
        on_cpu = functools.cache(functools.partial(numbers_on_cpu, case))
        for precision in TOLERANCES:
            yield Finding(f"{name}, {precision}", functools.partial(compared, case, on_cpu, precision))


def compared(case: Callable[[], Case], on_cpu: Callable[[], tuple[float, float]], precision: str) -> dict[str, Any]:
    """Figures of one row; failed where a difference is above its tolerance. case: makes the Case."""
    loss, norm = on_cpu()
    row: dict[str, Any] = dict(cpu_loss=loss, cpu_norm=norm)
    if backend.is_cpu():
        return row | dict(told="nothing to compare with: the CPU is the only platform")
    there = numbers(case(), jax.devices()[0], backend.name(), precision)
    row |= dict(loss=there[0], norm=there[1])
    differences = [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(there, (loss, norm), strict=True)]
    for name, difference, most in zip(("loss", "norm"), differences, TOLERANCES[precision], strict=True):
        row |= {f"{name}_difference": difference, f"{name}_tolerance": most}
        if not difference <= most:  # a NaN is a difference too
            row |= dict(failed=f"the {name} differs by {difference:.1e}, allowed is {most:.0e}")
    return row


def numbers_on_cpu(case: Callable[[], Case]) -> tuple[float, float]:
    """(loss, norm of the gradient) on the CPU. Raises RuntimeError where jax was not given one."""
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        raise RuntimeError("jax was given no CPU beside the device: JAX_PLATFORMS=cuda,cpu gives it one") from error
    return numbers(case(), cpu, "cpu", "highest")


def numbers(case: Case, device: Any, platform: str, precision: str) -> tuple[float, float]:
    """(loss, norm of the gradient) of a Case on a device, by the paths of a platform."""
    function, state, batch = case
    with backend.as_on(platform), jax.default_matmul_precision(precision), jax.default_device(device):
        args = jax.device_put((state, jax.random.key(1), batch), device)
        loss, norm = jax.jit(lambda *args: function(*args))(*args)  # a function that no trace is kept of
        return float(loss), float(norm)


def learned(learner: Learner, batch: Any) -> Case:
    """The Case of a learner whose metrics hold both numbers."""

    def both(*args: Any) -> tuple[Array, Array]:
        metrics = learner.update(*args)[1]
        return metrics["loss"], metrics["grad_norm"]

    return both, on_host(jax.jit(learner.init)(jax.random.key(0))), on_host(batch)


def on_host(tree: Any) -> Any:
    """A pytree as numpy arrays, which every device takes the same of."""
    return jax.tree.map(np.asarray, tree)


def planet_rssm(preset: str) -> Case:
    """PlaNet's RSSM."""
    config, spec = planet(preset)
    return learned(rssm.make(config, spec)[1], random_steps(*CHUNKS[preset], spec=spec))


def environment_model(preset: str) -> Case:
    """The sSSM, with rewards that are whole numbers."""
    spec, settings = (TINY, TINY_MAPS) if preset == "dry" else (GAME, {})
    batch = random_steps(*GAME_CHUNKS[preset], spec=spec)
    batch = dataclasses.replace(batch, reward=np.rint(2 * batch.reward))
    return learned(state_space.make(state_space.StateSpaceConfig("sssm", **settings), spec)[1], batch)


def smaller_world_model(preset: str) -> Case:
    """The VQ-VAE and the ConvLSTM: the sum of their losses."""
    sizes, spec = dream.sizes_of(preset)
    config = sizes.network
    modules, latents = make_modules(config, spec.obs_shape)
    model, learner = vq_convlstm.make(config, spec)
    log_prob = vq_convlstm.pixel_likelihood(config).log_prob

    def loss(params: Any, key: Array, batch: Any) -> Array:
        first = autoencoder_loss((modules, latents, log_prob), params, key, fold(batch.obs))[0]
        return first + dynamics_loss(config, (modules, latents), model, params, key, batch, spec.action)[0]

    def both(*args: Any) -> tuple[Array, Array]:
        value, grads = jax.value_and_grad(loss)(*args)
        return value, optax.global_norm(grads)

    params = jax.jit(learner.init)(jax.random.key(0)).params
    return both, on_host(params), on_host(dream.random_chunks(sizes, spec))


def actor_critic(preset: str) -> Case:
    """The A2C of the agents that query a model, without a model, on an unroll of MiniPacman."""
    one = agents.baseline(preset)
    _, (_, _, batch) = agents.learning(one)
    return learned(one.learner, batch)


MODELS = dict(rssm=planet_rssm, vq_convlstm=smaller_world_model, sssm=environment_model, a2c=actor_critic)
