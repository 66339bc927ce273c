"""The parts of a run, made from its config: shared by training (`__main__`) and the `table`."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.environment_models.config import BLOCKS, DataConfig, EvalConfig, TrainConfig
from wmjax import console, memory, replay
from wmjax.agents.open_loop import open_loop_images
from wmjax.envs import bouncing_ball
from wmjax.models import state_space
from wmjax.models.state_space import CONTEXT, StateSpaceConfig, model_action_size
from wmjax.ops import bernoulli, jumps
from wmjax.ops.actions import model_action
from wmjax.ops.axes import time_first
from wmjax.run.cli import build, read_path
from wmjax.storage import datasets
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError

TRAIN_KEY, TEST_KEY, CHUNKS_KEY = range(3)  # of the data: the same for every model and seed
DISPATCHED = 25  # updates of one dispatch at most: seconds on two cores
SAMPLES = 3  # futures drawn for a picture


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    task: str  # "ball:diffusing", "ball:drifting" or the absolute path of a recorded folder
    seed: int
    data: DataConfig
    model: StateSpaceConfig
    train: TrainConfig
    evaluation: EvalConfig


class Data(NamedTuple):
    spec: EnvSpec
    train: replay.Replay
    test: replay.Replay


def settings(config):
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    seed = config["seed"]
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise UsageError(f"config.seed={seed!r}: must be an integer from 0 to {2**31 - 1}")
    task = config["task"] if is_ball(config["task"]) else read_path("config.task", config["task"])
    return Settings(task, seed, **{name: build(cls, config[name], name) for name, cls in BLOCKS.items()})


def keys_of(seed):
    """(key of the parameters, of training, of evaluation) of a run."""
    return jax.random.split(jax.random.key(seed), 3)


def load(chosen):
    """The Data of a run on the device; raises UsageError for what is not there or does not fit.

    A recorded folder's missing and damaged shards are named on standard error, the rest is used.
    """
    rows = state_space.rows_of(chosen.model, predicted_steps(chosen))
    if not is_ball(chosen.task):
        return recorded(pathlib.Path(chosen.task), rows, chosen)
    if rows > chosen.data.length:
        raise UsageError(f"config.data.length={chosen.data.length}: a chunk of this model has {rows} rows")
    return balls(chosen.task.partition(":")[2], chosen.data)


def is_ball(task):
    """Whether the data of this name are balls, and not a recorded folder."""
    return task.partition(":")[0] == "ball"


def identity(chosen):
    """What is kept of a run's data, a dict to compare: of a recorded folder its full name and what its shards hold."""
    return {} if is_ball(chosen.task) else dict(task=chosen.task, recorded=datasets.fingerprint(chosen.task))


def recorded(folder, rows, chosen):
    """Train and test sequences of a recorded folder, in whose episodes `rows` rows must fit; rewards are scaled."""
    spec = datasets.read_spec(folder)

    def made(split):
        memory.check_fits(datasets.nbytes(folder, split), f"the {split} data of {folder}")
        steps, faults = datasets.read(folder, split)
        for fault in faults:
            console.warn(f"warning: {fault}")
        if not any(fits(is_first, rows) for each in steps for is_first in each.is_first.T):
            raise UsageError(f"{folder}: no {split} episode has {rows} rows, a chunk of this model")
        whole = jax.tree.map(lambda *xs: np.swapaxes(np.concatenate(xs), 0, 1), *steps)  # [E, T]
        whole = whole.replace(reward=whole_rewards(whole, chosen, f"the {split} data of {folder}"))
        length = whole.reward.shape[1]
        return replay.Replay(jax.device_put(whole), jnp.zeros((), jnp.int32), jnp.int32(length))

    return Data(spec, made("train"), made("test"))


def whole_rewards(steps, chosen, name):
    """The rewards of numpy Step [E, T] times config.data.reward_scale: whole numbers, as float32 [E, T].

    Raises: UsageError, in which the data are called `name`, unless they are whole and the model's binary digits hold
      them, and where it jumps their sums over the steps of a jump.
    """
    scale, jump = chosen.data.reward_scale, chosen.model.jump
    exact = steps.reward.astype(np.float64) * scale
    reward = np.rint(exact)
    whole = np.abs(exact - reward) < 1e-3  # rewards of 0.1 are not quite that in float32
    if not whole.all():
        raise UsageError(
            f"a reward of {steps.reward[~whole][0]:g} in {name}: times config.data.reward_scale={scale} rewards must "
            "be whole numbers"
        )
    windows, begins = (np.lib.stride_tricks.sliding_window_view(x, jump, axis=1) for x in (reward, steps.is_first))
    sums = np.where(begins[..., 1:].any(axis=-1), 0, windows.sum(axis=-1))  # inside one episode
    largest = int(np.abs(sums).max())
    if largest.bit_length() > chosen.model.reward_digits:
        raise UsageError(
            f"config.model.reward_digits={chosen.model.reward_digits}: {largest.bit_length()} are needed for rewards "
            f"up to {largest} in {name}; at most 16 are allowed, a smaller config.data.reward_scale needs fewer"
        )
    return reward.astype(np.float32)


def fits(is_first, rows):
    """Whether an episode of bool [T] has so many rows."""
    return np.diff(np.append(np.flatnonzero(is_first), len(is_first))).max() >= rows


def predicted_steps(chosen):
    """Steps of the model in config.train.predicted ones of the environment; raises UsageError if it jumps past them."""
    steps, rest = divmod(chosen.train.predicted, chosen.model.jump)
    if rest:
        raise UsageError(
            f"config.model.jump={chosen.model.jump}: does not divide config.train.predicted={chosen.train.predicted}"
        )
    return steps


def balls(task, data):
    """Train and test sequences of a ball, the same at every call; raises UsageError where they do not fit."""
    env = bouncing_ball.make(task, [0], dict(size=data.size, episode_steps=data.length))
    count = data.train_sequences + data.test_sequences
    memory.check_fits(replay.nbytes(data.length, env.reset()) * count, f"{count} sequences of {data.length} images")

    def made(key, count):
        steps = bouncing_ball.sequences(jax.random.key(key), task, count, data.length, data.size)
        return replay.Replay(steps, jnp.zeros((), jnp.int32), jnp.int32(data.length))

    return Data(env.spec, made(TRAIN_KEY, data.train_sequences), made(TEST_KEY, data.test_sequences))


def make_init(learner, chosen):
    """The jitted beginning of a run: (key, memory) -> LearnerState."""

    def init(key, memory):
        state = learner.init(key)
        if not chosen.model.contrast:
            return state
        mean = memory.rows.obs.mean(axis=(0, 1), dtype=jnp.float32) / 255  # every slot of these memories is filled
        return state.replace(params=state_space.with_background(state.params, mean))

    return jax.jit(init)


def make_phase(learner, chosen):
    """One dispatch of updates, one for each key: jitted (state, memory, keys [N]) -> (state, metrics [N])."""
    rows = state_space.rows_of(chosen.model, predicted_steps(chosen))

    def phase(state, memory, keys):
        def update(state, key):
            sample_key, update_key = jax.random.split(key)
            batch = replay.sample_within_episodes(memory, sample_key, chosen.train.batch, rows)
            return learner.update(state, update_key, batch)

        return jax.lax.scan(update, state, keys)

    return jax.jit(phase, donate_argnums=0)


def held_out(chosen, memory):
    """The chunks of every evaluation, Step [N, rows]: fewer, if a batch does not divide them."""
    count = chosen.evaluation.chunks // chosen.train.batch * chosen.train.batch or chosen.train.batch
    rows = state_space.rows_of(chosen.model, predicted_steps(chosen))
    return jax.jit(replay.sample_within_episodes, static_argnums=(2, 3))(
        memory, jax.random.key(CHUNKS_KEY), count, rows
    )


def make_evaluate(chosen, env_spec):
    """A jitted function (params, key, chunks [N]) -> dict of losses [N], minus the bounds in nats a predicted step.

    loss: of the evidence lower bound; loss_tighter: of the importance-weighted one.
    """
    score = state_space.make_score(chosen.model, env_spec)
    batch, steps = chosen.train.batch, predicted_steps(chosen)

    def evaluate(params, key, chunks):
        chunks = jax.tree.map(lambda x: x.reshape(-1, batch, *x.shape[1:]), chunks)
        keys = jax.random.split(key, chunks.reward.shape[0])
        found = jax.lax.map(lambda each: score(params, *each, chosen.evaluation.draws), (keys, chunks))
        losses = jax.tree.map(lambda x: -x.reshape(-1) / steps, found)
        return dict(loss=losses["bound"], loss_tighter=losses["tighter"])

    return jax.jit(evaluate)


def make_futures(model, chosen, env_spec):
    """A jitted function (params, key, chunk Step [rows]) -> uint8 [SAMPLES, T, X, Y, C]: futures of one beginning.

    Its first CONTEXT images are those it was shown, the rest it imagined from the actions.
    """
    spec = ActionSpec(model_action_size(chosen.model, env_spec.action), False, 0.0, 1.0)

    def futures(params, key, chunk):
        steps = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (SAMPLES, *x.shape)), chunk)
        action = model_action(steps.prev_action, env_spec.action)
        obs, action, reward = jumps.subsample(steps.obs, action, steps.reward, chosen.model.jump)
        first = jnp.broadcast_to(jnp.arange(reward.shape[1])[None] == 0, reward.shape)
        steps = Step(action, obs, reward, jnp.ones(reward.shape), first, jnp.zeros(reward.shape, bool))
        steps = jax.tree.map(time_first, steps)
        logits = open_loop_images(model, params, key, steps, action_spec=spec, context=CONTEXT)
        drawn = jnp.rint(255 * bernoulli.mean(logits[CONTEXT:])).astype(jnp.uint8)
        return jnp.concatenate([obs[:, :CONTEXT], time_first(drawn)], axis=1)

    return jax.jit(futures)


def pictured(chosen, chunks):
    """The held-out chunk of the pictures, and its images as the model counts time, uint8 [T, X, Y, C]."""
    chunk: Any = jax.tree.map(lambda x: x[0], chunks)
    return chunk, np.asarray(chunk.obs)[:: chosen.model.jump]
