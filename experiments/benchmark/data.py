"""What every part of the benchmark works on: PlaNet's images and actions, and random steps of them."""

from typing import Any

import jax
import numpy as np

from wmjax.models import rssm
from wmjax.types import ActionSpec, EnvSpec, Step

FLOAT, HALF = "float32", "bfloat16"  # what networks compute in
SPEC = EnvSpec(jax.ShapeDtypeStruct((64, 64, 3), np.uint8), ActionSpec(6, False, -1.0, 1.0))
TINY = EnvSpec(jax.ShapeDtypeStruct((16, 16, 3), np.uint8), ActionSpec(2, False, -1.0, 1.0))
TINY_NETWORK: dict[str, Any] = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=16)
TINY_NETWORK |= dict(stochastic=4, deterministic=8, hidden=8, reward_units=8)


def planet(preset: str, **settings: Any) -> tuple[rssm.RSSMConfig, EnvSpec]:
    """PlaNet's network and what it sees: the paper's, or tiny ones of preset dry. settings: of RSSMConfig."""
    if preset == "dry":
        return rssm.RSSMConfig(**TINY_NETWORK, **settings), TINY
    return rssm.RSSMConfig(**settings), SPEC


def with_dtype(name: str, dtype: str) -> str:
    """A row's name that says what its networks compute in where that is not FLOAT."""
    return name if dtype == FLOAT else f"{name}, {dtype}"


def random_steps(*lead: int, spec: EnvSpec = SPEC) -> Step:
    """Step of numpy arrays with the given leading axes, inside one long episode, with rewards below 1."""
    rng, size = np.random.default_rng(0), spec.action.size
    action = rng.integers(0, size, lead) if spec.action.discrete else rng.uniform(-1, 1, (*lead, size))
    return Step(
        prev_action=action.astype(np.int32 if spec.action.discrete else np.float32),
        obs=rng.integers(0, 256, (*lead, *spec.obs_shape)).astype(np.uint8),
        reward=rng.uniform(size=lead).astype(np.float32),
        discount=np.ones(lead, np.float32),
        is_first=np.zeros(lead, bool),
        is_last=np.zeros(lead, bool),
    )
