"""The agent of a PlaNet run, made from its config or loaded from its folder."""

import pathlib
from typing import Any, NamedTuple

import jax

from experiments.planet.config import BLOCKS, EvalConfig, PlannerConfig, TrainConfig
from wmjax import replay
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.models import rssm
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.run import devices, lifecycle, pools
from wmjax.run.cli import build
from wmjax.run.members import Member, make_members, member_keys, pick
from wmjax.storage import checkpoint, workdir
from wmjax.train import acting_params, with_average
from wmjax.types import Actor, EnvSpec, Learner, UsageError, WorldModel


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


class Loaded(NamedTuple):
    """The agent of a run's newest checkpoint."""

    agent: Agent
    params: Any  # those that act, of one member, [1, ...]
    task: str  # full name of its environment
    env: dict  # options of wmjax.envs.make
    spec: EnvSpec
    episodes: int  # collected when the checkpoint was written
    updates: int


def settings(config):
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks: dict[str, Any] = dict(devices="1") | dict(config)  # a finished run's config does not hold its devices
    members = make_members(blocks["task"], blocks["seed"], blocks["population"])
    built = {name: build(cls, blocks[name], name) for name, cls in BLOCKS.items()}
    options = {name: value for name, value in dict(blocks["env"]).items() if value is not None}
    return Settings(members, blocks["devices"], env=options, **built)


def make_agent(chosen, env_spec):
    """Model, learner and actor. chosen: Settings."""
    model, learner = rssm.make(chosen.model, env_spec)
    planner = chosen.planner
    if planner.name == "cem":
        cem = CEMConfig(planner.horizon, planner.iterations, planner.candidates, planner.elites, planner.action)
        planner = make_cem(model, env_spec.action, cem)
    else:
        shooting = ShootingConfig(planner.horizon, planner.candidates)
        planner = make_random_shooting(model, env_spec.action, shooting)
    learner = with_average(learner, chosen.train.average_decay)
    return Agent(model, learner, make_actor(model, planner, env_spec.action, chosen.agent))


def load(folder, member=0):
    """The Loaded agent of a run.

    Args: folder: of the run; member: which agent of a population, counted from 0.
    Raises: UsageError if the folder holds no run of PlaNet, no good checkpoint or fewer members.
    """
    folder = pathlib.Path(folder)
    config = workdir.read_config(folder)
    if "planner" not in config:
        raise UsageError(f"{folder} holds a run of another experiment")
    chosen = settings(config)
    task = pick(chosen.members, member).task
    spec = pools.spec_of(task, chosen.env)
    agent = make_agent(chosen, spec)
    learner = jax.eval_shape(jax.vmap(agent.learner.init), member_keys(chosen.members, 4)[0])
    rest = dict.fromkeys(("counters", "env", "eval_env"), checkpoint.AS_SAVED)
    episodes, state = lifecycle.restore_member(folder, dict(learner=learner) | rest, member)
    learner = state["learner"]
    return Loaded(agent, acting_params(learner), task, chosen.env, spec, episodes, int(learner.updates[0]))


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
