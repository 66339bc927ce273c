"""The agent of a run and the model that it asks, made from a config or loaded from folders."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from experiments.environment_models import agent as world_models
from experiments.environment_models.config import is_ball
from experiments.i2a.config import AGENTS, BLOCKS, EvalConfig, TrainConfig
from wmjax import envs
from wmjax.agents import i2a
from wmjax.envs import VecEnv, atari_actions
from wmjax.models import state_space
from wmjax.models.simulator import compiled
from wmjax.ops import bernoulli
from wmjax.run import devices, lifecycle, pools, processes, unroll
from wmjax.run.cli import build, check_top, read_path
from wmjax.run.members import check_seed
from wmjax.storage import checkpoint, manifest, workdir
from wmjax.types import Actor, Array, EnvSpec, JaxEnv, Learner, Params, UsageError, WorldModel

SIMULATOR = "simulator"  # in place of a model's folder: the environment itself
BLIND = "vae"  # a kind of model whose state no action changes
LEARNED = ("untrained", "ltq", "modulation")  # agents that ask a network alone


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    task: str  # full name of the environment
    seed: int
    devices: str
    kind: str  # of config.AGENTS
    model_run: str  # "", SIMULATOR or the absolute path of a run of environment_models
    env: dict  # options of wmjax.envs.make
    agent: i2a.I2AConfig
    train: TrainConfig
    evaluation: EvalConfig


class World(NamedTuple):
    """The model that an agent asks."""

    query: i2a.Query | None  # None: of model_free
    params: Params  # frozen
    decode: Callable[..., Array] | None  # (params, state) -> pixels in [0, 1], [B, X, Y, C]
    identity: dict  # what is kept of it in the run's config


class Made(NamedTuple):
    """An agent with what trains it and what plays it."""

    agent: i2a.Agent
    learner: Learner
    player: unroll.Player


def read_settings(config: Any) -> Settings:
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    check_top(config, dict(task=str, seed=int, kind=str, model_run=str), (*BLOCKS, "env"))
    seed, kind, run = config["seed"], config["kind"], config["model_run"]
    check_seed(seed)
    if kind not in AGENTS:
        raise UsageError(f"config.kind={kind!r}: choose one of {', '.join(AGENTS)}")
    if (kind == "model_free") != (run == ""):
        needs = "asks no model" if run else f"give the folder of a run of environment_models, or {SIMULATOR}"
        raise UsageError(f"config.model_run={run!r}: agent {kind}: {needs}")
    run = run if run in ("", SIMULATOR) else read_path("config.model_run", run)
    env = {name: value for name, value in dict(config["env"]).items() if value is not None}
    if run == SIMULATOR:
        if config["task"].startswith("atari:") or kind in LEARNED:
            what = f"agent {kind}" if kind in LEARNED else config["task"]
            raise UsageError(f"config.model_run={SIMULATOR}: is for environments in pure JAX, and not for {what}")
        if config["task"].startswith("minipacman:"):  # others show their state or do not
            env["observe"] = "image+state"
    blocks: dict[str, Any] = {name: build(cls, config[name], name) for name, cls in BLOCKS.items()}
    wanted: dict[str, Any] = dict(pixels=False, modulated=False) | AGENTS[kind]
    if any(getattr(blocks["agent"], name) != value for name, value in wanted.items()):
        raise UsageError(f"config.agent: agent {kind} is {wanted}")
    number = config.get("devices", "1")  # a finished run's config does not hold its devices
    return Settings(config["task"], seed, number, kind, run, env, **blocks)


def make_mesh(settings: Settings) -> Mesh:
    """The mesh of a run; raises UsageError unless environment rows can be split evenly over its devices."""
    mesh = devices.make_mesh(settings.devices)
    sizes = {"config.train.rows": settings.train.rows, "config.evaluation.episodes": settings.evaluation.episodes}
    devices.check_divisible(mesh, sizes)
    return mesh


def keys_of(seed: int) -> Array:
    """(key of the parameters, of an untrained model, of the first episodes, of training, of evaluation)."""
    return jax.random.split(jax.random.key(seed), 5)


def spec_of(settings: Settings) -> tuple[EnvSpec, JaxEnv | None]:
    """(EnvSpec of the environments, the JaxEnv itself where they are in pure JAX)."""
    env = envs.make_jax(settings.task, **settings.env)
    return (env.spec, env) if env else (pools.spec_of(settings.task, settings.env), None)


def check_actions(settings: Settings, spec: EnvSpec) -> None:
    """Raises UsageError unless the agent can choose, and where it must ask about, each of an environment's actions."""
    if not spec.action.discrete:
        raise UsageError(f"{settings.task}: its actions are continuous, and these agents choose among actions")
    forced = settings.kind != "model_free" and settings.agent.force_first
    if forced and settings.agent.rollouts != spec.action.size:
        raise UsageError(
            f"config.agent.rollouts={settings.agent.rollouts}: with force_first=True there is one for each of the "
            f"{spec.action.size} actions of {settings.task}"
        )


def make_world(settings: Settings, spec: EnvSpec, env: JaxEnv | None, key: Array) -> World:
    """The World of a run. key: of an untrained model and of fresh parts.

    Raises: UsageError for a model that is not there, unfinished, or of another environment.
    """
    check_actions(settings, spec)
    if settings.kind == "model_free":
        return World(None, {}, None, {})
    world = world_of_simulator(settings, env) if settings.model_run == SIMULATOR else world_of_run(settings, spec, key)
    assert world.query is not None
    decisions = settings.agent.horizon * world.query.jump
    if spec.time_limit and decisions > spec.time_limit:
        raise UsageError(
            f"config.agent.horizon={settings.agent.horizon}: {decisions} decisions, an episode has {spec.time_limit}"
        )
    return world._replace(query=query_of(settings, world))


def query_of(settings: Settings, world: World) -> i2a.Query:
    """The Query of this kind of agent: what `copy` and `pixels` change in the model."""
    query, decode = world.query, world.decode
    assert query is not None and decode is not None
    model = query.model
    if settings.kind == "copy":
        model = model._replace(imagine=lambda params, key, state, action: state)
    if settings.kind == "pixels":
        shape = jax.eval_shape(lambda: decode(world.params, model.initial(world.params, 1))).shape[1:]
        model = model._replace(features=decode, feature_shape=shape)
        query = query._replace(policy_sees=lambda features: features)
    return query._replace(model=model)


def world_of_simulator(settings: Settings, env: JaxEnv | None) -> World:
    """The World of the environment itself."""
    if env is None:
        raise UsageError(f"config.model_run={SIMULATOR}: is for environments in pure JAX, and not for {settings.task}")
    model = compiled.make_model(env)
    return World(i2a.Query(model, compiled.CONTEXT, compiled.begin), {}, model.features, dict(world=SIMULATOR))


def world_of_run(settings: Settings, spec: EnvSpec, key: Array) -> World:
    """The World of a run of environment_models."""
    folder = pathlib.Path(settings.model_run)
    loaded = world_models.load(folder)
    planned = loaded.settings.train.updates
    if loaded.updates < planned:
        raise UsageError(f"config.model_run={folder}: unfinished, {loaded.updates} of {planned} updates")
    for name in ("obs_shape", "action"):
        one, two = getattr(loaded.spec, name), getattr(spec, name)
        if one != two:
            raise UsageError(f"config.model_run={folder}: a model of {name} {one}, and {settings.task} has {two}")
    check_data(settings, loaded.settings.task)
    check_model(settings, loaded.settings.model)
    begin = state_space.make_begin(loaded.settings.model, spec)
    first = lambda key: state_space.make(loaded.settings.model, spec)[1].init(key).params
    params = jax.jit(first)(key) if settings.kind == "untrained" else loaded.params
    model = in_points(loaded.model, loaded.settings.data.reward_scale)
    channels = loaded.settings.model.channels  # of the state: latents are 0 where the rollout policy learns to imitate
    query = i2a.Query(model, begin.images, begin.begin, loaded.settings.model.jump)
    query = query._replace(policy_sees=lambda features: features[..., :channels])
    if settings.kind == "modulation":
        query = query._replace(
            fresh=lambda key: dict(prior=first(key)["prior"]), merge=lambda params, part: params | part
        )

    def decode(params: Params, state: Any) -> Array:
        assert loaded.model.decode is not None
        return bernoulli.mean(loaded.model.decode(params, state))

    return World(query, params, decode, dict(world=manifest.digest(params)[:16]))


def in_points(model: WorldModel, scale: float) -> WorldModel:
    """The model with rewards in the environment's own points. scale: config.data.reward_scale of its data."""
    return model._replace(reward=lambda params, state: model.reward(params, state) / scale)


def check_data(settings: Settings, data: str) -> None:
    """Raises UsageError unless a model's data, a ball's name or a recorded folder, are of this environment.

    Of an Atari game its actions' numbers count too: sets of the same size are not told apart by the model's spec.
    """
    recorded: dict[str, Any] = dict(game=data) if is_ball(data) else workdir.read_config(pathlib.Path(data))
    if recorded["game"] != settings.task:
        why = f"a model of {recorded['game']}, and the environment is {settings.task}"
        raise UsageError(f"config.model_run={settings.model_run}: {why}")
    if settings.task.startswith("atari:"):
        played, modelled = (played_actions(settings.task, env) for env in (settings.env, recorded["env"]))
        if played != modelled:
            why = f"a model of the actions {modelled}, and the environment has {played}"
            raise UsageError(f"config.model_run={settings.model_run}: {why}")


def played_actions(task: str, env: dict[str, Any]) -> tuple[int, ...]:
    """The joystick's numbers of a game's actions. env: options of wmjax.envs.make."""
    return atari_actions.played_set(task.removeprefix("atari:"), env.get("actions"), bool(env.get("full_action_set")))


def check_model(settings: Settings, config: state_space.StateSpaceConfig) -> None:
    """Raises UsageError unless the model sees actions; for modulation unless it does not, and draws latents."""
    modulated = settings.kind == "modulation"
    if config.kind == BLIND:
        raise UsageError(f"config.model_run={settings.model_run}: is a {BLIND}, whose state no action changes")
    if config.sees_actions == modulated:
        raise UsageError(
            f"config.model_run={settings.model_run}: agent {settings.kind} asks a model trained with "
            f"config.model.sees_actions={not modulated}"
        )
    if modulated and config.kind != "sssm":
        raise UsageError(f"config.model_run={settings.model_run}: is {config.kind}, and agent modulation asks an sssm")


def make(settings: Settings, spec: EnvSpec, world: World) -> Made:
    """The agent, its learner and its player."""
    agent = i2a.make_agent(settings.agent, spec, world.query)
    player = unroll.Player(agent.initial, agent.look, functools.partial(i2a.choose, agent))
    return Made(agent, i2a.make(settings.agent, agent), player)


class Loaded(NamedTuple):
    """What plays in a finished or unfinished run."""

    actor: Actor
    params: Any  # dict(model=..., agent=...)
    task: str  # full name of its environment
    env: dict  # options of wmjax.envs.make for the images that it sees
    updates: int


def is_own(config: dict[str, Any]) -> bool:
    """Whether the config.json of a run, a dict, is one of this experiment."""
    return "rollout_policy" in config.get("agent", ())


def load(folder: str | pathlib.Path) -> Loaded:
    """The acting part of a run from its newest checkpoint; the model that it asks must be where it was.

    Raises: UsageError if the folder holds no run of this experiment or no good checkpoint.
    """
    folder = pathlib.Path(folder)
    config = workdir.read_config(folder)
    if not is_own(config):
        raise UsageError(f"{folder} holds a run of another experiment")
    settings = read_settings(config)
    spec, env = spec_of(settings)
    world = make_world(settings, spec, env, keys_of(settings.seed)[1])
    if config.get("world") != world.identity.get("world"):
        raise UsageError(f"{folder}: the model in {settings.model_run} is not the one that it was trained with")
    made = make(settings, spec, world)
    template = dict(learner=lifecycle.acting_part(jax.eval_shape(made.learner.init, jax.random.key(0))))
    others = ("playing", "tally", "began", "counters", "partial", "env", "eval_env")
    updates, state = lifecycle.restore_saved(folder, template | dict.fromkeys(others, checkpoint.AS_SAVED))
    params = dict(model=world.params, agent=state["learner"].params)
    return Loaded(i2a.make_actor(made.agent), params, settings.task, settings.env, updates)


def make_env(settings: Settings, rows: int, purpose: str) -> VecEnv:
    """Environments that are stepped from the host; of several processes each makes its share."""
    own, first = processes.share(rows)
    return envs.make(settings.task, own, settings.seed, purpose=purpose, first_row=first, **settings.env)
