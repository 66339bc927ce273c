"""What every part of the benchmark works on: PlaNet's images and actions, and random steps of them."""

import jax
import numpy as np

from wmjax.types import ActionSpec, EnvSpec, Step

SPEC = EnvSpec(jax.ShapeDtypeStruct((64, 64, 3), np.uint8), ActionSpec(6, False, -1.0, 1.0))


def random_steps(*lead: int) -> Step:
    """Step of numpy arrays with the given leading axes, inside one long episode."""
    rng = np.random.default_rng(0)
    return Step(
        prev_action=rng.uniform(-1, 1, (*lead, SPEC.action.size)).astype(np.float32),
        obs=rng.integers(0, 256, (*lead, *SPEC.obs_shape)).astype(np.uint8),
        reward=rng.uniform(size=lead).astype(np.float32),
        discount=np.ones(lead, np.float32),
        is_first=np.zeros(lead, bool),
        is_last=np.zeros(lead, bool),
    )
