"""The agent of a PlaNet run, made from its config or loaded from its folder."""

import functools
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import presets
from experiments.planet.config import BLOCKS, FAMILY, MODELS, EvalConfig, PlannerConfig, TrainConfig
from wmjax import envs, replay
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.envs import gl
from wmjax.envs.check import check_name
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.run import devices, lifecycle, pools
from wmjax.run.cli import build, check_top
from wmjax.run.members import Member, by_task, make_members, member_keys, pick
from wmjax.storage import checkpoint, workdir
from wmjax.train import acting_params, with_average
from wmjax.types import Actor, Array, EnvSpec, Learner, Step, UsageError, WorldModel


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    members: tuple[Member, ...]  # tasks and seeds of the agents in this program
    tasks: dict[str, tuple[Member, ...]]  # the members as players of each task, by its short name
    devices: str
    env: dict
    family: str  # of MODELS
    model: Any  # the family's config
    planner: PlannerConfig
    agent: MPCConfig
    train: TrainConfig
    evaluation: EvalConfig


class Agent(NamedTuple):
    model: WorldModel
    learner: Learner
    actor: Actor


class Prepared(NamedTuple):
    """What a training begins with, as of `prepare`."""

    mesh: Mesh
    specs: dict[str, EnvSpec]  # of each task
    spec: EnvSpec  # the widest of them, that the agent is made for
    example: Step  # numpy, [E], of the widest task
    agent: Agent


class Loaded(NamedTuple):
    """The agent of a run's newest checkpoint."""

    agent: Agent
    params: Any  # those that act
    task: str  # full name of its environment
    label: str  # of that task, as in `labels`
    env: dict  # options of wmjax.envs.make
    spec: EnvSpec  # that the agent is made for
    episodes: int  # collected when the checkpoint was written; none of an offline run
    updates: int


def read_settings(config: Any) -> Settings:
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks: dict[str, Any] = dict(devices="1") | dict(config)  # a finished run's config does not hold its devices
    check_top(blocks, dict(task=str, seed=int, population=int, family=str), (*BLOCKS, "env"))
    members = make_members(blocks["task"], blocks["seed"], blocks["population"])
    family = blocks["family"]
    check_name("config.family", family, MODELS)
    classes: dict[str, type] = BLOCKS | dict(model=MODELS[family].config)
    built: dict[str, Any] = {name: build(cls, blocks[name], name) for name, cls in classes.items()}
    tasks = by_task(members, tuple(presets.tasks(each, FAMILY) for each in built["train"].tasks))
    options = {name: value for name, value in dict(blocks["env"]).items() if value is not None}
    return Settings(members, tasks, blocks["devices"], options, family, **built)


def labels(tasks: Mapping[str, Any]) -> dict[str, str]:
    """{task: what names of files that are of this task end in}: nothing where it is the agent's only one."""
    return {task: f"_{task}" if len(tasks) > 1 else "" for task in tasks}


def spec_of(settings: Settings) -> EnvSpec:
    """The EnvSpec that the agents are made for."""
    specs = {task: pools.spec_of(players[0].task, settings.env) for task, players in settings.tasks.items()}
    return specs[pools.widest(specs)]


def make_agent(settings: Settings, env_spec: EnvSpec) -> Agent:
    """Model, learner and actor."""
    model, learner = MODELS[settings.family].make(settings.model, env_spec)
    planner = settings.planner
    if planner.name == "cem":
        cem = CEMConfig(planner.horizon, planner.iterations, planner.candidates, planner.elites, planner.action)
        planner = make_cem(model, env_spec.action, cem)
    else:
        shooting = ShootingConfig(planner.horizon, planner.candidates)
        planner = make_random_shooting(model, env_spec.action, shooting)
    learner = with_average(learner, settings.train.average_decay)
    if model.horizon is not None:
        check_update(learner, env_spec, settings.train.chunk)
    return Agent(model, learner, make_actor(model, planner, env_spec.action, settings.agent))


def prepare(settings: Settings) -> Prepared:
    """What a training begins with; raises UsageError for what its main and its doctor refuse."""
    train, mesh = settings.train, devices.make_mesh(settings.devices)
    if train.overlap:
        gl.draw_without_threads()
    firsts = {task: pools.first_step(players, train.num_envs, settings.env) for task, players in settings.tasks.items()}
    specs = {task: spec for task, (spec, _) in firsts.items()}
    spec, example = firsts[pools.widest(specs)]
    agent = make_agent(settings, spec)
    check_lengths(train, specs.values())
    check_devices(settings, mesh)
    return Prepared(mesh, specs, spec, example, agent)


def check_update(learner: Learner, env_spec: EnvSpec, rows: int) -> None:
    """Traces an update on a chunk of so many rows: UsageError where the learner takes none so short."""
    key = jax.random.key(0)
    jax.eval_shape(learner.update, jax.eval_shape(learner.init, key), key, random_steps(env_spec, (1, rows)))


def random_steps(env_spec: EnvSpec, lead: tuple[int, ...]) -> Step:
    """A Step [*lead] of numpy arrays: random observations, the rest zeros, an episode's beginning first."""
    rng, zeros = np.random.default_rng(0), np.zeros(lead, np.float32)
    obs = jax.tree.map(lambda x: rng.integers(0, 255, (*lead, *x.shape)).astype(x.dtype), env_spec.obs)
    spec = env_spec.action
    action = np.zeros(lead, np.int32) if spec.discrete else np.zeros((*lead, spec.size), np.float32)
    is_first = np.broadcast_to(np.arange(lead[-1]) == 0, lead)
    return Step(action, obs, zeros, np.ones(lead, np.float32), is_first, np.zeros(lead, bool))


def is_own(config: dict[str, Any]) -> bool:
    """Whether the config.json of a run, a dict, is one of this experiment."""
    return "planner" in config


def load(folder: str | pathlib.Path, member: int = 0, task: str | None = None) -> Loaded:
    """The Loaded agent of a run.

    Args: folder: of the run; member: which agent of a population, counted from 0; task: short name of the one to play
      of an agent's tasks, None for the first.
    Raises: UsageError if the folder holds no run of PlaNet, no good checkpoint, fewer members or no such task.
    """
    folder = pathlib.Path(folder)
    config = workdir.read_config(folder)
    if not is_own(config):
        raise UsageError(f"{folder} holds a run of another experiment")
    settings = read_settings(config)
    task = next(iter(settings.tasks)) if task is None else task
    check_name("--task", task, settings.tasks)
    full = pick(settings.tasks[task], member).task
    spec = spec_of(settings)
    agent = make_agent(settings, spec)
    learner = jax.eval_shape(jax.vmap(agent.learner.init), member_keys(settings.members, 4)[0])
    rest = dict.fromkeys(("counters", "env", "eval_env", "losses"), checkpoint.AS_SAVED)  # those of either main
    done, state = lifecycle.restore_member(folder, dict(learner=lifecycle.acting_part(learner)) | rest, member)
    episodes = 0 if "offline" in config else done
    learner, label = state["learner"], labels(settings.tasks)[task]
    return Loaded(agent, acting_params(learner), full, label, settings.env, spec, episodes, int(learner.updates))


def test_env(loaded: Loaded, rows: int, seed: int, **options: Any) -> Any:
    """Environments of test episodes for a Loaded agent: a VecEnv that takes its actions. options: beside the run's."""
    env = envs.make(loaded.task, rows, seed, purpose="test", **loaded.env | options)
    return envs.pad(env, loaded.spec.action.size)


def check_lengths(train: TrainConfig, specs: Collection[EnvSpec]) -> None:
    """Raises UsageError where chunks, episodes and the replay cannot fit each other. specs: EnvSpec of each task."""
    for spec in specs:
        if spec.time_limit is not None and train.chunk > spec.time_limit + 1:
            raise UsageError(f"config.train.chunk={train.chunk}: an episode has at most {spec.time_limit + 1} rows")
    least = max(train.chunk, sum((spec.time_limit or 0) + 1 for spec in specs))
    if train.capacity < least:
        raise UsageError(
            f"config.train.replay_rows={train.replay_rows}: with {train.num_envs} environments at least "
            f"{least * train.num_envs}, for one episode{' of each task' if len(specs) > 1 else ''} and one chunk each"
        )


def check_devices(settings: Settings, mesh: Mesh) -> None:
    """Raises UsageError unless environment rows and batches can be split evenly over the devices."""
    devices.check_divisible(
        mesh,
        {
            "config.train.num_envs": settings.train.num_envs,
            "config.train.batch": settings.train.batch,
            "config.evaluation.episodes": settings.evaluation.episodes,
        },
    )


@functools.cache
def longest_episodes() -> Callable[[replay.Replay], Array]:
    """A jitted function of the members' replays [S] -> rows of each one's longest episode."""
    return jax.jit(jax.vmap(replay.longest_episode))


def check_chunk(train: TrainConfig, memory: replay.Replay) -> None:
    """Raises UsageError unless every member's replay [S] holds an episode, or all its rows hold one chunk."""
    what, rows = "the longest episode in the replay", np.asarray(longest_episodes()(memory))
    if not train.within_episodes:
        what, rows = "the replay", np.asarray(memory.filled)
    if train.chunk > rows.min():
        raise UsageError(f"config.train.chunk={train.chunk}: {what} has {rows.min()} rows, of which a chunk is made")
