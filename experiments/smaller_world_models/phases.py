"""The phases of an iteration: collect, warm up the autoencoder, fit the model, train the policy in imagination.

Everything here has a leading axis of members [S] where it says so.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.smaller_world_models.agent import Agent, Settings, check_chunk, make_agent
from experiments.smaller_world_models.config import TrainConfig
from wmjax import imagine, replay
from wmjax.agents import ppo
from wmjax.ops import frames
from wmjax.run import devices, pools
from wmjax.run.members import member
from wmjax.train import check_finite, make_counted_phase, repeated
from wmjax.types import Array, EnvSpec, LearnerState, Step

PHASES = ("collect", "warm_up", "fit", "dream", "evaluate")  # of an iteration; warm_up in the first alone

DOING = dict(warm_up="warming up the autoencoder", fit="fitting the model", dream="training the policy in dreams")

BINS = 20  # points on the curves of one training phase

DISPATCHED = dict(warm_up=100, fit=10, dream=10)  # updates of one dispatch, of all members: seconds on two cores


def at(values: Sequence[Any], iteration: int) -> Any:
    """What a tuple says of an iteration: its own value, or the last one."""
    return values[min(iteration, len(values) - 1)]


class Prepared(NamedTuple):
    """What a training begins with."""

    mesh: Mesh
    spec: EnvSpec
    example: Step  # [S], of single frames
    agent: Agent
    capacity: int  # rows of each member in the replay: all that it will collect


def prepare(settings: Settings) -> Prepared:
    """What a training begins with; raises UsageError for what its main and its doctor refuse."""
    train, mesh = settings.train, devices.make_mesh(settings.devices)
    names = ("autoencoder_batch", "dynamics_batch", "imagined_batch")
    sizes = {f"config.train.{name}": getattr(train, name) for name in names}
    devices.check_divisible(mesh, sizes | {"config.evaluation.episodes": settings.evaluation.episodes})
    spec, example = pools.first_step(settings.members, 1, settings.env)
    agent = make_agent(settings, spec)
    capacity = 1 + sum(at(train.interactions, i) for i in range(train.iterations))
    check_chunk(train, 1 + min(spec.time_limit or capacity, at(train.interactions, 0)))
    return Prepared(mesh, spec, newest(example, train.frames), agent, capacity)


def newest(steps: Any, count: int) -> Any:
    """The newest `count` frames' own channels of stacked images: what a replay of single frames holds."""
    return steps.replace(obs=steps.obs[..., -(steps.obs.shape[-1] // count) :])


def stacked(steps: Any, count: int) -> Any:
    """Step [B, T, ...] of single frames -> Step [B, T - count + 1, ...] whose images are stacks of `count`."""
    stacks = frames.stack(steps.obs, steps.is_first, count)
    return jax.tree.map(lambda x: x[:, count - 1 :], steps.replace(obs=stacks))


class Curve(NamedTuple):
    """A phase of training: BINS points of so many updates."""

    updates: int
    each: int  # what one of them counts for in the metrics: those of the dynamics
    numbers: tuple  # for all of them

    def part(self, name: str, done: int, members: int) -> tuple[int, int, int]:
        """(point, first, stop) of the dispatch of all members that comes after `done` updates of the phase `name`."""
        point, first = divmod(done, self.updates)
        return point, first, min(first + max(1, DISPATCHED[name] // members), self.updates)


def curve(name: str, train: TrainConfig, iteration: int, kept: int) -> Curve:
    """The Curve of a phase in an iteration. kept: rows of the replay."""
    if name == "warm_up":
        updates = train.warmup_epochs * kept / train.autoencoder_batch
        return Curve(per_point(updates), 1, (np.float32(train.warmup_rate),))
    if name == "fit":
        interval = at(train.intervals, iteration)
        updates = at(train.epochs, iteration) * kept / (train.dynamics_batch * train.dynamics_chunk)
        return Curve(per_point(updates / interval), interval, (np.int32(interval),))
    return Curve(per_point(at(train.rounds, iteration)), 1, ())


def make_draw(train: TrainConfig, mesh: Mesh) -> Callable:
    """(memory, key, B) -> images uint8 [B, X, Y, C] as the networks see them, split over the mesh."""

    def draw(memory: replay.Replay, key: Array, batch: int) -> Array:
        images = stacked(replay.sample(memory, key, batch, train.frames), train.frames).obs[:, 0]
        return jax.lax.with_sharding_constraint(images, devices.split(mesh, 0))

    return draw


def make_warm_up(agent: Agent, train: TrainConfig, mesh: Mesh) -> Callable:
    """A phase of updates of the autoencoder alone; its number is the rate."""
    draw = make_draw(train, mesh)

    def update(state: LearnerState, memory: replay.Replay, key: Array, rate: Array) -> tuple[LearnerState, dict]:
        sample_key, key = jax.random.split(key)
        return agent.updates.autoencoder(state, key, draw(memory, sample_key, train.autoencoder_batch), rate)

    return make_counted_phase(update, BINS, devices.replicated(mesh))


def make_fit(agent: Agent, train: TrainConfig, mesh: Mesh) -> Callable:
    """A phase of cycles: one update of the autoencoder, then as many of the dynamics as its number says."""
    length, draw, over_batch = train.dynamics_chunk + train.frames - 1, make_draw(train, mesh), devices.split(mesh, 0)

    def dynamics(memory: replay.Replay, state: LearnerState, key: Array) -> tuple[LearnerState, dict]:
        sample_key, key = jax.random.split(key)
        batch = stacked(replay.sample_within_episodes(memory, sample_key, train.dynamics_batch, length), train.frames)
        return agent.updates.dynamics(state, key, jax.lax.with_sharding_constraint(batch, over_batch))

    def update(state: LearnerState, memory: replay.Replay, key: Array, interval: Array) -> tuple[LearnerState, dict]:
        sample_key, autoencoder_key, dynamics_key = jax.random.split(key, 3)
        images = draw(memory, sample_key, train.autoencoder_batch)
        state, metrics = agent.updates.autoencoder(state, autoencoder_key, images)
        state, more = repeated(functools.partial(dynamics, memory), interval, state, dynamics_key)
        return state, metrics | more | dict(grad_finite=metrics["grad_finite"] | more["grad_finite"])

    return make_counted_phase(update, BINS, devices.replicated(mesh))


def make_dream(agent: Agent, train: TrainConfig, mesh: Mesh) -> Callable:
    """A phase of PPO rounds on imagined episodes from random frames of the replay; its state: (model's, policy's)."""
    draw = make_draw(train, mesh)

    def update(
        state: tuple[LearnerState, LearnerState], memory: replay.Replay, key: Array
    ) -> tuple[tuple[LearnerState, LearnerState], dict]:
        world, policy = state
        sample_key, start_key, imagine_key, update_key = jax.random.split(key, 4)
        images = draw(memory, sample_key, train.imagined_batch)
        start = imagine.begin(agent.model, world.params, start_key, images, agent.action_spec)
        params = (world.params, policy.params)
        rollout = ppo.dream(agent.model, agent.network, *params, imagine_key, start, train.imagined_steps)
        policy, metrics = agent.policy.update(policy, update_key, rollout)
        return (world, policy), metrics

    return make_counted_phase(update, BINS, devices.replicated(mesh))


MAKERS = dict(warm_up=make_warm_up, fit=make_fit, dream=make_dream)  # (Agent, TrainConfig, Mesh) -> a phase


def per_point(updates: float) -> int:
    """The number of updates for each point of a phase's curve, so that about `updates` are made in all."""
    return max(1, round(updates / BINS))


def continued_returns(steps: Step, unfinished: np.ndarray) -> tuple[list[list[float]], np.ndarray]:
    """Returns of episodes that go on from one collection to the next.

    Args: steps: Step [T, S]; unfinished: [S], what the present episodes have earned before these steps.
    Returns: (the returns of the episodes that ended, a list for every member, what the present ones have so far [S]).
    """
    ended, left = [], []
    for reward, is_last, total in zip(steps.reward.T, steps.is_last.T, unfinished, strict=True):
        cuts = np.flatnonzero(is_last) + 1
        sums = [float(part.sum()) for part in np.split(reward.astype(np.float64), cuts)]
        sums[0] += total
        ended.append(sums[:-1])
        left.append(sums[-1])
    return ended, np.array(left)


def check_and_means(
    sums: dict[str, Any], curve: Curve, first_update: int, member_folders: Sequence[Path]
) -> list[dict[str, float]]:
    """Means of a point of a curve, one dict for each member.

    Args: sums: of metrics over the point, [S]; curve: its Curve; first_update: of the point, for messages;
      member_folders: of every member, which name it.
    Raises: NonFiniteError where a mean is not finite.
    """
    sums = jax.tree.map(lambda x: x[:, None] / np.float32(curve.updates), sums)  # [S, 1]
    rows = [member(sums, i) for i in range(len(member_folders))]
    for folder, row in zip(member_folders, rows, strict=True):
        owner = folder.name if len(rows) > 1 else ""
        check_finite(row, first_update, owner, updates_per_row=curve.updates * curve.each)
    return [{f"train/{key}": float(x[0]) for key, x in row.items() if key != "grad_finite"} for row in rows]
