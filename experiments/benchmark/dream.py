"""Smaller World Models at the paper's sizes (Table 5): updates of its model, imagined episodes, a round of PPO."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark import authors
from experiments.benchmark.data import random_steps
from wmjax.agents import ppo
from wmjax.models import vq_convlstm
from wmjax.nets.policy import GridPolicy
from wmjax.report.benchmark import Work, compiled
from wmjax.types import ActionSpec, Array, EnvSpec, Params, State, Step

ACTIONS = 6  # Pong's
BESIDE = ("quick", "paper")  # presets that measure other code too


class Sizes(NamedTuple):
    """Of the images and of the network; then of the autoencoder's batch, the dynamics' batch, imagined episodes."""

    side: int = 96
    network: vq_convlstm.VQConvLSTMConfig = vq_convlstm.VQConvLSTMConfig()
    images: int = 40
    rows: int = 4
    time: int = 11
    episodes: int = 16
    horizon: int = 50
    agent: ppo.PPOConfig = ppo.PPOConfig()


TINY = vq_convlstm.VQConvLSTMConfig(
    encoder_widths=(4, 8), decoder_widths=(8, 4), codes=6, code_size=3, cells=(4,), kernel=3, reward_hidden=8
)
DRY = Sizes(8, TINY, 2, 2, 6, 2, 3, ppo.PPOConfig(epochs=1, minibatch=3))


def sizes_of(preset: str) -> tuple[Sizes, EnvSpec]:
    """Every size is the paper's, with every preset but dry; the game is Pong."""
    sizes = DRY if preset == "dry" else Sizes()
    return sizes, EnvSpec(
        jax.ShapeDtypeStruct((sizes.side, sizes.side, 1), np.uint8), ActionSpec(ACTIONS, True, 0, ACTIONS - 1)
    )


def random_chunks(sizes: Sizes, spec: EnvSpec) -> Step:
    """Step [B, T] of noise with rewards of every class."""
    steps = random_steps(sizes.rows, sizes.time, spec=spec)
    return dataclasses.replace(steps, reward=np.sign(np.round(3 * steps.reward - 1.5)).astype(np.float32))


def works(preset: str) -> Iterator[Work]:
    """The phases of an iteration, each beside the authors' on a CPU."""
    for work, make, amounts in phases(preset):
        yield work
        if preset in BESIDE and authors.clone():
            yield authors.beside(work, make, ACTIONS, *amounts)


def phases(preset: str) -> Iterator[tuple[Work, Callable, tuple[int, ...]]]:
    """(ours, what makes the authors', its sizes) of each phase."""
    sizes, spec = sizes_of(preset)
    model, learner = vq_convlstm.make(sizes.network, spec)
    updates = vq_convlstm.make_updates(sizes.network, spec)
    network = GridPolicy(actions=spec.action.size)
    agent = ppo.make(sizes.agent, network, model.feature_shape)

    def trained(batch: Any) -> tuple[Any, ...]:
        return jax.jit(learner.init)(jax.random.key(0)), jax.random.key(1), jax.device_put(batch)

    images = random_steps(sizes.images, spec=spec).obs
    name, frames = f"autoencoder, {sizes.images}", {"frames": sizes.images}
    work = compiled(name, updates.autoencoder, lambda: trained(images), frames)
    yield work, authors.autoencoder, (sizes.images,)

    name, frames = f"dynamics, {sizes.rows} x {sizes.time}", {"frames": sizes.rows * sizes.time}
    work = compiled(name, updates.dynamics, lambda: trained(random_chunks(sizes, spec)), frames)
    yield work, authors.dynamics, (sizes.rows, sizes.time)

    def dream(params: Params, policy_params: Params, key: Array, start: State) -> Any:
        return ppo.dream(model, network, params, policy_params, key, start, sizes.horizon)

    def started() -> tuple[Any, ...]:
        params, policy = jax.jit(learner.init)(jax.random.key(0)).params, jax.jit(agent.init)(jax.random.key(2)).params
        return params, policy, jax.random.key(1), model.initial(params, sizes.episodes)

    def imagined() -> tuple[Any, ...]:
        return jax.jit(agent.init)(jax.random.key(2)), jax.random.key(1), jax.jit(dream)(*started())

    name, states = f"{sizes.episodes} x {sizes.horizon}", sizes.episodes * sizes.horizon
    episodes = (sizes.episodes, sizes.horizon)
    yield compiled(f"imagination, {name}", dream, started, {"states": states}), authors.imagination, episodes
    yield compiled(f"PPO round, {name}", agent.update, imagined, {"decisions": states}), authors.ppo_round, episodes
