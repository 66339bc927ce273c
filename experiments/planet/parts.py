"""The parts of a PlaNet run, made from its config: shared by training (`__main__`) and `evaluate`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.planet.config import BLOCKS, EvalConfig, PlannerConfig, TrainConfig
from wmjax import replay
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.agents.open_loop import open_loop_images
from wmjax.console import try_drawing
from wmjax.models import rssm
from wmjax.ops import image_bits
from wmjax.ops.batching import mapped
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.report.metrics import evaluated
from wmjax.report.video import tile, write_strip, write_video
from wmjax.run import devices
from wmjax.run.cli import build
from wmjax.run.collect import padded, play_episodes
from wmjax.run.members import Member, by_member, make_members, member
from wmjax.run.stopwatch import Timers
from wmjax.types import Actor, Learner, UsageError, WorldModel

CONTEXT, PREDICTED = 5, 50  # frames seen, and in all, of the open-loop predictions (Fig. 10)
DISPATCHED = 10  # updates of one dispatch at most: seconds on two cores, a minute at the paper's sizes
FRAMES_A_SECOND = 25  # of videos: cheetah's own time at action repeat 4


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    members: tuple[Member, ...]  # tasks and seeds of the agents in this program
    devices: str
    env: dict
    model: rssm.RSSMConfig
    planner: PlannerConfig
    agent: MPCConfig
    train: TrainConfig
    evaluation: EvalConfig


class Agent(NamedTuple):
    model: WorldModel
    learner: Learner
    actor: Actor


def settings(config):
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks: dict[str, Any] = dict(devices="1") | dict(config)  # a finished run's config does not hold its devices
    members = make_members(blocks["task"], blocks["seed"], blocks["population"])
    built = {name: build(cls, blocks[name], name) for name, cls in BLOCKS.items()}
    options = {name: value for name, value in dict(blocks["env"]).items() if value is not None}
    return Settings(members, blocks["devices"], env=options, **built)


def check_lengths(train, env_spec, capacity):
    """Raises UsageError where chunks, episodes and the replay cannot fit each other."""
    if env_spec.time_limit is not None and train.chunk > env_spec.time_limit + 1:
        raise UsageError(f"config.train.chunk={train.chunk}: an episode has at most {env_spec.time_limit + 1} rows")
    longest = max(train.chunk, (env_spec.time_limit or 0) + 1)
    if capacity < longest:
        raise UsageError(
            f"config.train.replay_rows={train.replay_rows}: with {train.num_envs} environments at least "
            f"{longest * train.num_envs}, for one episode and one chunk each"
        )


def check_devices(chosen, mesh):
    """Raises UsageError unless environment rows and batches can be split evenly over the devices."""
    devices.check_divisible(
        mesh,
        {
            "config.train.num_envs": chosen.train.num_envs,
            "config.train.batch": chosen.train.batch,
            "config.evaluation.episodes": chosen.evaluation.episodes,
        },
    )


longest_episodes = jax.jit(jax.vmap(replay.longest_episode))


def check_chunk(train, memory):
    """Raises UsageError unless every member's replay [S] holds an episode, or all its rows hold one chunk."""
    what, rows = "the longest episode in the replay", longest_episodes(memory)
    if not train.within_episodes:
        what, rows = "the replay", memory.filled
    if train.chunk > rows.min():
        raise UsageError(f"config.train.chunk={train.chunk}: {what} has {rows.min()} rows, of which a chunk is made")


def make_agent(chosen, env_spec):
    """Model, learner and actor. chosen: Settings."""
    model, learner = rssm.make(chosen.model, env_spec)
    planner = chosen.planner
    if planner.name == "cem":
        cem = CEMConfig(planner.horizon, planner.iterations, planner.candidates, planner.elites)
        planner = make_cem(model, env_spec.action, cem)
    else:
        shooting = ShootingConfig(planner.horizon, planner.candidates)
        planner = make_random_shooting(model, env_spec.action, shooting)
    return Agent(model, learner, make_actor(model, planner, env_spec.action, chosen.agent))


def average(acting, state, decay):
    """The parameters that act: an exponential average over updates, the newest ones alone when decay is 0.

    Early on it averages over a tenth of the updates so far, so that the initial parameters are soon forgotten.
    """
    updates = state.updates.astype(jnp.float32)
    keep = jnp.minimum(decay, updates / (updates + 10.0))
    return jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, acting, state.params)


def mean_steps(changes, rate):
    """The mean size of an optimiser's changes to each kernel of a pytree, in learning rates: [kernels]."""
    return [float(jnp.abs(x).mean()) / rate for x in jax.tree.leaves(changes) if x.ndim > 1]


def make_train_phase(learner, train, updates, mesh):
    """One dispatch of many updates: a jitted function (state, acting, memory, keys) -> ((state, acting), metrics).

    All have a leading axis of members [S]; metrics are [updates, S]. acting: the running average of the learner's
    parameters, which acts. Nothing is donated: the acting parameters may be in use meanwhile, and a run that is stopped
    goes back to the state before. train: TrainConfig; mesh: devices over which batches are split.
    """
    draw = replay.sample_within_episodes if train.within_episodes else replay.sample
    over_devices = devices.split(mesh, 1)

    def phase(state, acting, memory, keys):
        def update(carry, keys):
            state, acting = carry
            sample_keys, update_keys = jax.vmap(jax.random.split)(keys).T
            batch = jax.vmap(lambda memory, key: draw(memory, key, train.batch, train.chunk))(memory, sample_keys)
            batch = jax.lax.with_sharding_constraint(batch, over_devices)  # [S, B, T, ...]
            state, metrics = mapped(learner.update)(state, update_keys, batch)
            acting = jax.vmap(average, (0, 0, None))(acting, state, train.average_decay)
            return (state, acting), metrics

        keys = jax.vmap(lambda key: jax.random.split(key, updates))(keys)
        return jax.lax.scan(update, (state, acting), keys.T)

    return jax.jit(phase, out_shardings=devices.replicated(mesh))


def make_predict(agent, env_spec):
    """A function (params, key, numpy Step [T, 1]) -> uint8 [T, X, Y, C]: open-loop images of one episode.

    T <= PREDICTED; every T has the same program: shorter episodes are padded, and their images cut.
    """

    @jax.jit
    def images_of(params, key, steps):
        images = open_loop_images(agent.model, params, key, steps, action_spec=env_spec.action, context=CONTEXT)
        return image_bits.to_uint8(images[:, 0])

    def predict(params, key, steps):
        return np.asarray(images_of(params, key, padded(steps, PREDICTED)))[: len(steps.reward)]

    return predict


def first_episode(steps, most):
    """The first episode of row 0 of Step [T, E], up to `most` rows of it: Step [t, 1]."""
    ends = np.flatnonzero(steps.is_last[:most, 0])
    return member(steps, (slice(ends[0] + 1 if len(ends) else most), slice(1)))


def evaluate(members, name, env, player, predict, params, keys):
    """Plays one episode in every row of the evaluation pool and shows what was seen and what was predicted.

    Args:
      members: a folder for every member [S]; env: VecEnv of S * M rows; player: greedy Player; predict: from
      `make_predict`; params: [S, ...]; keys: [S].
    Writes videos/<name>.mp4, a member's M rows side by side, and videos/open_loop_<name>.png of its first row.
    Returns: metrics of each member: the mean of its returns, their standard deviation and each row's value.
    """
    play_keys, predict_keys = jax.vmap(jax.random.split)(keys).T
    steps, returns = play_episodes(env, player, params, play_keys, Timers())
    steps = by_member(steps, len(members), axis=1)
    rows = []
    for i, own in enumerate(np.split(returns, len(members))):
        seen = member(steps, (slice(None), i))
        first = first_episode(seen, PREDICTED)
        imagined = predict(member(params, i), predict_keys[i], first)
        videos = members[i] / "videos"
        try_drawing(write_video, videos / f"{name}.mp4", tile(np.swapaxes(seen.obs, 0, 1)), FRAMES_A_SECOND)
        try_drawing(write_strip, videos / f"open_loop_{name}.png", first.obs[:, 0], imagined, CONTEXT)
        rows.append(evaluated(own))
    return rows
