"""Random shooting: the best of many random action sequences (PlaNet, Fig. 5), and the scoring that planners share."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax.planners.search import check_continuous, check_search, over_rows, score
from wmjax.types import Plan, Planner


@dataclass(frozen=True)
class ShootingConfig:
    """horizon: H steps looked ahead; candidates: N sequences scored for each environment."""

    horizon: int = 12
    candidates: int = 1000

    def __post_init__(self):
        check_search(self.horizon, self.candidates)


def make_random_shooting(model, action_spec, config):
    """A Planner that draws sequences from N(0, 1), clipped to the action bounds, and takes the best one."""
    check_continuous(action_spec)

    def plan(params, key, state):
        draw_key, model_key = jax.random.split(key)
        shape = (config.horizon, config.candidates, action_spec.size)
        candidates = jnp.clip(jax.random.normal(draw_key, shape), action_spec.low, action_spec.high)
        values = score(model, params, model_key, state, candidates)
        best = jnp.argmax(values)
        sequence = candidates[:, best]
        return Plan(sequence[0], sequence, jnp.ones_like(sequence), values[best])

    return Planner(over_rows(plan))
