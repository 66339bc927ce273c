"""The data of a run: balls, or sequences of a recorded folder."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.environment_models.agent import Settings, predicted_steps, spec_of
from experiments.environment_models.config import DataConfig, is_ball
from wmjax import console, memory, replay
from wmjax.envs import bouncing_ball
from wmjax.models import state_space
from wmjax.run import devices, processes
from wmjax.storage import datasets
from wmjax.types import EnvSpec, Step, UsageError

TRAIN_KEY, TEST_KEY, CHUNKS_KEY = range(3)  # of the data: the same for every model and seed


class Data(NamedTuple):
    """Sequences to train on and held-out ones.

    Of images that stay on the host the replays hold numbers in their place, int32: t * E + e of the environment e at
    time t of all shards.
    """

    spec: EnvSpec
    train: replay.Replay
    test: replay.Replay
    train_images: list[np.ndarray] | None = None  # on the host: of each shard uint8 [T, E, X, Y, C]
    test_images: list[np.ndarray] | None = None


def load(settings: Settings, mesh: Mesh) -> Data:
    """The Data of a run on every device; raises UsageError for what is not there or does not fit.

    A recorded folder's missing and damaged shards are named on standard error, the rest is used. Each process of a run
    makes or reads all of it.
    """
    rows = state_space.rows_of(settings.model, predicted_steps(settings))
    if not is_ball(settings.task):
        return recorded(pathlib.Path(settings.task), rows, settings, mesh)
    if settings.data.images == "host":
        raise UsageError("config.data.images=host: is for recorded folders; balls are made on the device")
    if rows > settings.data.length:
        raise UsageError(f"config.data.length={settings.data.length}: a chunk of this model has {rows} rows")
    return balls(settings.task.partition(":")[2], settings.data, mesh)


def identity(settings: Settings) -> dict[str, Any]:
    """What a run's config keeps of its data, to compare when it resumes: a recorded folder's full name and digest."""
    return {} if is_ball(settings.task) else dict(task=settings.task, recorded=datasets.fingerprint(settings.task))


def placed(steps: Step, mesh: Mesh) -> replay.Replay:
    """Numpy Step [E, T] as a full replay on every device."""
    length = np.full((), steps.reward.shape[1], np.int32)
    return processes.to_devices(replay.Replay(steps, np.zeros((), np.int32), length), devices.replicated(mesh))


def recorded(folder: pathlib.Path, rows: int, settings: Settings, mesh: Mesh) -> Data:
    """Train and test sequences of a recorded folder, in whose episodes `rows` rows must fit; rewards are scaled."""
    spec, on_host = spec_of(settings), settings.data.images == "host"

    def load_split(split: str) -> tuple[replay.Replay, list[np.ndarray] | None]:
        free = memory.host_memory() if on_host else memory.free_memory()
        copies = 1 if on_host else devices.in_one_memory(mesh)
        memory.check_fits(copies * datasets.nbytes(folder, split), f"the {split} data of {folder}", free)
        steps, faults = datasets.read(folder, split)
        for fault in faults:
            console.warn(f"warning: {fault}")
        if not any(fits(is_first, rows) for shard in steps for is_first in shard.is_first.T):
            raise UsageError(f"{folder}: no {split} episode has {rows} rows, a chunk of this model")
        images = [shard.obs for shard in steps] if on_host else None
        if on_host:
            steps = [dataclasses.replace(shard, obs=None) for shard in steps]
        whole = jax.tree.map(lambda *xs: np.swapaxes(np.concatenate(xs), 0, 1), *steps)  # [E, T]
        whole = whole.replace(reward=whole_rewards(whole, settings, f"the {split} data of {folder}"))
        envs, length = whole.reward.shape
        if on_host:
            whole = whole.replace(obs=np.arange(length * envs, dtype=np.int32).reshape(length, envs).T)
        return placed(whole, mesh), images

    (train, train_images), (test, test_images) = load_split("train"), load_split("test")
    return Data(spec, train, test, train_images, test_images)


def images_of(numbers: np.ndarray, shards: list[np.ndarray]) -> np.ndarray:
    """The images uint8 [..., T, X, Y, C] of chunks of numbers int32 [..., T].

    shards: as of Data, of which each chunk lies in one.
    """
    ends = np.cumsum([len(shard) for shard in shards])
    times, envs = np.divmod(numbers, shards[0].shape[1])
    images = np.empty((*numbers.shape, *shards[0].shape[2:]), np.uint8)
    for index, shard in np.ndenumerate(np.searchsorted(ends, times[..., 0], side="right")):
        first = ends[shard] - len(shards[shard])
        images[index] = shards[shard][times[index] - first, envs[index]]
    return images


def background(settings: Settings, data: Data) -> replay.Replay:
    """The replay whose mean image `agent.make_init` takes; of images on the host one row that holds their mean."""
    if data.train_images is None or not settings.model.contrast:
        return data.train
    total = sum(each.sum(axis=(0, 1), dtype=np.int64) for each in data.train_images)
    mean = np.asarray(total / data.train.rows.reward.size, np.float32)[None, None]
    mean = processes.to_devices(mean, data.train.cursor.sharding)
    return dataclasses.replace(data.train, rows=dataclasses.replace(data.train.rows, obs=mean))


def whole_rewards(steps: Step, settings: Settings, name: str) -> np.ndarray:
    """The rewards of numpy Step [E, T] times config.data.reward_scale: whole numbers, as float32 [E, T].

    Raises: UsageError, in which the data are called `name`, unless they are whole and the model's binary digits hold
      them, and where it jumps their sums over the steps of a jump.
    """
    scale, jump = settings.data.reward_scale, settings.model.jump
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
    if largest.bit_length() > settings.model.reward_digits:
        raise UsageError(
            f"config.model.reward_digits={settings.model.reward_digits}: {largest.bit_length()} are needed for rewards "
            f"up to {largest} in {name}; at most 16 are allowed, a smaller config.data.reward_scale needs fewer"
        )
    return reward.astype(np.float32)


def fits(is_first: np.ndarray, rows: int) -> bool:
    """Whether an episode of bool [T] has so many rows."""
    return np.diff(np.append(np.flatnonzero(is_first), len(is_first))).max() >= rows


def balls(task: str, data: DataConfig, mesh: Mesh) -> Data:
    """Train and test sequences of a ball, the same at every call; raises UsageError where they do not fit."""
    env = bouncing_ball.make(task, [0], dict(size=data.size, episode_steps=data.length))
    count = data.train_sequences + data.test_sequences
    size = devices.in_one_memory(mesh) * replay.nbytes(data.length, env.reset()) * count
    memory.check_fits(size, f"{count} sequences of {data.length} images")

    def draw(key: int, count: int) -> replay.Replay:
        steps = bouncing_ball.sequences(jax.random.key(key), task, count, data.length, data.size)
        return placed(jax.device_get(steps), mesh)

    return Data(env.spec, draw(TRAIN_KEY, data.train_sequences), draw(TEST_KEY, data.test_sequences))


def held_out(settings: Settings, memory: replay.Replay, shards: list[np.ndarray] | None = None) -> Step:
    """The chunks of every evaluation, Step [N, rows]: fewer, if a batch does not divide them. shards: as of Data."""
    count = settings.evaluation.chunks // settings.train.batch * settings.train.batch or settings.train.batch
    rows = state_space.rows_of(settings.model, predicted_steps(settings))
    chunks = jax.jit(replay.sample_within_episodes, static_argnums=(2, 3))(
        memory, jax.random.key(CHUNKS_KEY), count, rows
    )
    if shards is None:
        return chunks
    images = images_of(jax.device_get(chunks.obs), shards)
    return dataclasses.replace(chunks, obs=processes.to_devices(images, memory.cursor.sharding))
