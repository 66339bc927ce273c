"""The training phase: updates on chunks of the data, drawn on the device or from shards on the host."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from experiments.environment_models.agent import Settings, predicted_steps
from experiments.environment_models.data import Data, images_of
from wmjax import replay
from wmjax.models import state_space
from wmjax.run import devices, processes
from wmjax.train import make_phase
from wmjax.types import Array, Learner, LearnerState, Step

DISPATCHED = 25  # updates of one dispatch at most: seconds on two cores


def make_training(
    learner: Learner, settings: Settings, data: Data, mesh: Mesh
) -> Callable[..., tuple[LearnerState, dict]]:
    """(state, keys [C]) -> (state, metrics [C]): an update on a batch of chunks for each key; the state is donated.

    Batches are functions of their keys, the same ones wherever images are, and split over the mesh. Those of shards on
    the host are copied to the devices C together; each process copies what its devices take.
    """
    whole, over_batch = devices.replicated(mesh), devices.split(mesh, 1)
    shards = data.train_images
    if shards is None:
        phase = make_phase(make_update(learner, settings, mesh), donate=True, sharding=whole)
        return lambda state, keys: phase(state, data.train, keys)
    draw = jax.jit(jax.vmap(make_draw(settings), (None, 0)), out_shardings=over_batch)  # Step [C, B, rows]

    def update(state: LearnerState, _: None, drawn: tuple[Array, Step]) -> tuple[LearnerState, dict]:
        key, batch = drawn
        return learner.update(state, jax.random.split(key)[1], batch)

    phase = make_phase(update, donate=True, sharding=whole)

    def train(state: LearnerState, keys: Array) -> tuple[LearnerState, dict]:
        batches = draw(data.train, keys)
        images = images_of(processes.from_devices(batches.obs, axis=1), shards)
        return phase(state, None, (keys, batches.replace(obs=processes.to_devices(images, over_batch))))

    return train


def make_draw(settings: Settings) -> Callable[[replay.Replay, Array], Step]:
    """(memory, key of an update) -> its batch of chunks, Step [B, rows]."""
    rows = state_space.rows_of(settings.model, predicted_steps(settings))

    def draw(memory: replay.Replay, key: Array) -> Step:
        return replay.sample_within_episodes(memory, jax.random.split(key)[0], settings.train.batch, rows)

    return draw


def make_update(learner: Learner, settings: Settings, mesh: Mesh) -> Callable[..., tuple[LearnerState, dict]]:
    """(state, memory, key) -> (state, metrics): one update on a batch of chunks, which is split over the mesh."""
    draw, over_batch = make_draw(settings), devices.split(mesh, 0)

    def update(state: LearnerState, memory: replay.Replay, key: Array) -> tuple[LearnerState, dict]:
        batch = jax.lax.with_sharding_constraint(draw(memory, key), over_batch)
        return learner.update(state, jax.random.split(key)[1], batch)

    return update
