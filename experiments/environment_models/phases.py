"""The training phase: updates on chunks of the data, drawn on the device or from shards on the host."""

from collections.abc import Callable

import jax

from experiments.environment_models.agent import Settings, predicted_steps
from experiments.environment_models.data import Data, with_images
from wmjax import replay
from wmjax.models import state_space
from wmjax.train import make_phase
from wmjax.types import Array, Learner, LearnerState, Step

DISPATCHED = 25  # updates of one dispatch at most: seconds on two cores


def make_training(learner: Learner, chosen: Settings, data: Data) -> Callable[..., tuple[LearnerState, dict]]:
    """(state, keys [C]) -> (state, metrics [C]): an update on a batch of chunks for each key; the state is donated.

    Batches are functions of their keys, the same ones wherever images are. Those of shards on the host are copied to
    the device together, C of them.
    """
    if data.train_images is None:
        phase = make_phase(make_update(learner, chosen), donate=True)
        return lambda state, keys: phase(state, data.train, keys)
    draw = jax.jit(jax.vmap(make_draw(chosen), (None, 0)))

    def given(state: LearnerState, nothing: None, each: tuple[Array, Step]) -> tuple[LearnerState, dict]:
        return learner.update(state, jax.random.split(each[0])[1], each[1])

    phase = make_phase(given, donate=True)
    return lambda state, keys: phase(state, None, (keys, with_images(draw(data.train, keys), data.train_images)))


def make_draw(chosen: Settings) -> Callable[[replay.Replay, Array], Step]:
    """(memory, key of an update) -> its batch of chunks, Step [B, rows]."""
    rows = state_space.rows_of(chosen.model, predicted_steps(chosen))

    def draw(memory: replay.Replay, key: Array) -> Step:
        return replay.sample_within_episodes(memory, jax.random.split(key)[0], chosen.train.batch, rows)

    return draw


def make_update(learner: Learner, chosen: Settings) -> Callable[..., tuple[LearnerState, dict]]:
    """(state, memory, key) -> (state, metrics): one update on a batch of chunks."""
    draw = make_draw(chosen)

    def update(state: LearnerState, memory: replay.Replay, key: Array) -> tuple[LearnerState, dict]:
        return learner.update(state, jax.random.split(key)[1], draw(memory, key))

    return update
