"""The environment model of a run, made from its config or loaded from its folder."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.environment_models.config import BLOCKS, DataConfig, EvalConfig, TrainConfig, is_ball
from wmjax.envs import bouncing_ball
from wmjax.models import state_space
from wmjax.models.state_space import StateSpaceConfig
from wmjax.replay import Replay
from wmjax.run import devices, lifecycle
from wmjax.run.cli import build, check_top, read_path
from wmjax.run.members import check_seed
from wmjax.storage import checkpoint, datasets, workdir
from wmjax.types import Array, EnvSpec, Learner, LearnerState, UsageError, WorldModel

OWN_DATA = "data"  # what an exported model says of the data that it learned from, in its own folder


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    task: str  # "ball:diffusing", "ball:drifting" or the absolute path of a recorded folder
    seed: int
    devices: str
    data: DataConfig
    model: StateSpaceConfig
    train: TrainConfig
    evaluation: EvalConfig


def read_settings(config: Any) -> Settings:
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks: dict[str, Any] = dict(devices="1") | dict(config)  # a finished run's config does not hold its devices
    check_top(blocks, dict(task=str, seed=int), BLOCKS)
    check_seed(blocks["seed"])
    task = blocks["task"] if is_ball(blocks["task"]) else read_path("config.task", blocks["task"])
    built: dict[str, Any] = {name: build(cls, blocks[name], name) for name, cls in BLOCKS.items()}
    return Settings(task, blocks["seed"], blocks["devices"], **built)


def make_mesh(settings: Settings) -> Mesh:
    """The mesh of a run; raises UsageError unless batches can be split evenly over its devices."""
    mesh = devices.make_mesh(settings.devices)
    devices.check_divisible(mesh, {"config.train.batch": settings.train.batch})
    return mesh


def keys_of(seed: int) -> Array:
    """(key of the parameters, of training, of evaluation) of a run."""
    return jax.random.split(jax.random.key(seed), 3)


def predicted_steps(settings: Settings) -> int:
    """Steps of the model in config.train.predicted ones of the environment; raises UsageError if it jumps past them."""
    steps, rest = divmod(settings.train.predicted, settings.model.jump)
    if rest:
        jump, predicted = settings.model.jump, settings.train.predicted
        raise UsageError(f"config.model.jump={jump}: does not divide config.train.predicted={predicted}")
    return steps


def make_init(learner: Learner, settings: Settings, mesh: Mesh) -> Callable[..., LearnerState]:
    """The jitted beginning of a run: (key, memory) -> LearnerState."""

    def init(key: Array, memory: Replay) -> LearnerState:
        state: Any = learner.init(key)
        if not settings.model.contrast:
            return state
        mean = memory.rows.obs.mean(axis=(0, 1), dtype=jnp.float32) / 255  # every slot of these memories is filled
        return state.replace(params=state_space.with_background(state.params, mean))

    return jax.jit(init, out_shardings=devices.replicated(mesh))


class Loaded(NamedTuple):
    """The model of a run's newest checkpoint."""

    model: WorldModel
    params: Any
    settings: Settings
    spec: EnvSpec
    updates: int


def load(folder: str | pathlib.Path) -> Loaded:
    """The Loaded model of a run. Raises: UsageError if the folder holds no run of this experiment or no checkpoint."""
    folder = pathlib.Path(folder)
    config = workdir.read_config(folder)
    if "data" not in config:
        raise UsageError(f"{folder} holds a run of another experiment")
    own = folder / OWN_DATA
    settings = read_settings(config | dict(task=str(own)) if own.exists() else config)
    spec = spec_of(settings)
    model, learner = state_space.make(settings.model, spec)
    template: dict[str, Any] = dict(learner=lifecycle.acting_part(jax.eval_shape(learner.init, jax.random.key(0))))
    template |= dict.fromkeys(("counters", "losses"), checkpoint.AS_SAVED)
    updates, state = lifecycle.restore_saved(folder, template)
    return Loaded(model, state["learner"].params, settings, spec, updates)


def spec_of(settings: Settings) -> EnvSpec:
    """The EnvSpec of a run's data, which need not be there for balls."""
    if is_ball(settings.task):
        return bouncing_ball.make(settings.task.partition(":")[2], [0], dict(size=settings.data.size)).spec
    if not pathlib.Path(settings.task, datasets.INDEX).exists():
        allowed = ", ".join(f"ball:{mode}" for mode in bouncing_ball.NOISE)
        filled = "a folder that experiments.record filled"
        raise UsageError(f"{settings.task} holds no recorded data; data are {allowed} or {filled}")
    return datasets.read_spec(settings.task)
