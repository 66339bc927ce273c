"""The training phase: updates on chunks of the data."""

from collections.abc import Callable

import jax

from experiments.environment_models.agent import Settings, predicted_steps
from wmjax import replay
from wmjax.models import state_space
from wmjax.types import Array, Learner, LearnerState

DISPATCHED = 25  # updates of one dispatch at most: seconds on two cores


def make_update(learner: Learner, chosen: Settings) -> Callable[..., tuple[LearnerState, dict]]:
    """(state, memory, key) -> (state, metrics): one update on a batch of chunks."""
    rows = state_space.rows_of(chosen.model, predicted_steps(chosen))

    def update(state: LearnerState, memory: replay.Replay, key: Array) -> tuple[LearnerState, dict]:
        sample_key, update_key = jax.random.split(key)
        batch = replay.sample_within_episodes(memory, sample_key, chosen.train.batch, rows)
        return learner.update(state, update_key, batch)

    return update
