"""The agent of a run of Smaller World Models, made from its config or loaded from its folder."""

import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments.smaller_world_models.config import BLOCKS, EvalConfig, PolicyConfig, TrainConfig
from wmjax.agents import ppo
from wmjax.models import vq_convlstm
from wmjax.nets.policy import GridPolicy, ImagePolicy, VectorPolicy
from wmjax.run import lifecycle, pools
from wmjax.run.cli import build, check_top
from wmjax.run.members import Member, make_members, member_keys, pick
from wmjax.storage import checkpoint, workdir
from wmjax.types import ActionSpec, Actor, EnvSpec, Learner, UsageError, WorldModel


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    members: tuple[Member, ...]  # tasks and seeds of the agents in this program
    devices: str
    env: dict
    model: vq_convlstm.VQConvLSTMConfig
    policy: PolicyConfig
    agent: ppo.PPOConfig
    train: TrainConfig
    evaluation: EvalConfig


class Agent(NamedTuple):
    model: WorldModel
    learner: Learner
    updates: Any  # vq_convlstm.Updates
    codes: Any  # of vq_convlstm.make_codes
    image: Any  # logits of WorldModel.decode -> pixels in [0, 1]
    network: Any  # a flax module of wmjax.nets.policy
    action_spec: ActionSpec
    policy: Learner
    actor: Actor


class Loaded(NamedTuple):
    """What plays in a finished or unfinished run."""

    actor: Actor
    params: Any
    task: str  # full name of its environment
    env: dict  # options of wmjax.envs.make for the images that it sees; "stack" is absent if it sees one frame
    iterations: int  # whole ones before the checkpoint was written
    updates: int  # of the dynamics until then


def read_settings(config: Any) -> Settings:
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks: dict[str, Any] = dict(devices="1") | dict(config)  # a finished run's config does not hold its devices
    check_top(blocks, dict(task=str, seed=int, population=int), (*BLOCKS, "env"))
    members = make_members(blocks["task"], blocks["seed"], blocks["population"])
    built: dict[str, Any] = {name: build(cls, blocks[name], name) for name, cls in BLOCKS.items()}
    env = {name: value for name, value in dict(blocks["env"]).items() if value is not None}
    if built["train"].frames > 1:
        env["stack"] = built["train"].frames  # what the networks see; the replay keeps the newest
    return Settings(members, blocks["devices"], env=env, **built)


def settings_of(folder: str | pathlib.Path) -> Settings:
    """The Settings of a run; raises UsageError if the folder holds none of this experiment."""
    config = workdir.read_config(folder)
    if not is_own(config):
        raise UsageError(f"{folder} holds a run of another experiment")
    return read_settings(config)


def is_own(config: dict[str, Any]) -> bool:
    """Whether the config.json of a run, a dict, is one of this experiment."""
    return "codes" in config.get("model", ()) and "frames" in config.get("train", ())


def check_chunk(train: TrainConfig, rows: int) -> None:
    """Raises UsageError unless a sequence for the dynamics fits into an episode of `rows` rows."""
    if train.dynamics_chunk + train.frames - 1 > rows:
        raise UsageError(
            f"config.train.dynamics_chunk={train.dynamics_chunk}: with {train.frames} frames an episode needs "
            f"{train.dynamics_chunk + train.frames - 1} rows, the longest has {rows}"
        )


def longest(is_first: np.ndarray) -> int:
    """Rows of the longest piece of one episode in every column of is_first [T, S]: the least over columns."""
    cuts = [np.diff([0, *np.flatnonzero(column), len(column)]) for column in np.asarray(is_first).T]
    return int(min(each.max() for each in cuts))


def load(folder: str | pathlib.Path, member: int = 0) -> Loaded:
    """The acting part of a run from its newest checkpoint: Loaded.

    Args: folder: of the run; member: which agent of a population, counted from 0.
    Raises: UsageError if the folder holds no run of this experiment, no good checkpoint or fewer members.
    """
    folder = pathlib.Path(folder)
    settings = settings_of(folder)
    task = pick(settings.members, member).task
    agent = make_agent(settings, pools.spec_of(task, settings.env))
    world_keys, policy_keys, *_ = member_keys(settings.members, 7)
    world = lifecycle.acting_part(jax.eval_shape(jax.vmap(agent.learner.init), world_keys))
    policy = lifecycle.acting_part(jax.eval_shape(jax.vmap(agent.policy.init), policy_keys))
    rest = dict.fromkeys(("unfinished", "counters", "partial", "env", "eval_env"), checkpoint.AS_SAVED)
    iterations, state = lifecycle.restore_member(folder, dict(world=world, policy=policy, **rest), member)
    params = dict(model=state["world"].params, policy=state["policy"].params)
    return Loaded(agent.actor, params, task, settings.env, iterations, int(state["world"].updates))


def make_agent(settings: Settings, env_spec: EnvSpec) -> Agent:
    """World model, policy and actor. Raises UsageError for images that the encoder cannot take."""
    if not env_spec.action.discrete:
        raise UsageError(f"config.task={settings.members[0].task!r}: this agent needs discrete actions")
    model, learner = vq_convlstm.make(settings.model, env_spec)
    if settings.train.policy_sees == "reconstructions":
        model = vq_convlstm.through_reconstructions(settings.model, env_spec, model)
    network = make_network(settings, model.feature_shape, env_spec.action.size)
    policy = ppo.make(settings.agent, network, model.feature_shape)
    actor = ppo.make_actor(model, network, settings.agent)
    updates = vq_convlstm.make_updates(settings.model, env_spec)
    codes = vq_convlstm.make_codes(settings.model, env_spec)
    image = vq_convlstm.pixel_likelihood(settings.model).mean
    return Agent(model, learner, updates, codes, image, network, env_spec.action, policy, actor)


def make_network(settings: Settings, feature_shape: tuple[int, ...], actions: int) -> nn.Module:
    """A policy network for a model's features. actions: their number."""
    policy = settings.policy
    sizes: dict[str, Any] = dict(channels=policy.channels, kernel=policy.kernel, widths=(policy.hidden,))
    if settings.train.policy_sees == "reconstructions":
        return ImagePolicy(actions, settings.model.encoder_widths, **sizes)
    if len(feature_shape) == 1:
        return VectorPolicy(actions, (policy.hidden, policy.hidden))
    return GridPolicy(actions, **sizes)
