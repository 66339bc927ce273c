"""Random shooting: the best of many random action sequences (PlaNet, Fig. 5)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax import checks
from wmjax.planners.beliefs import make_beliefs
from wmjax.planners.search import check_horizon, over_rows, score
from wmjax.types import Plan, Planner


@dataclass(frozen=True)
class ShootingConfig:
    """horizon: H steps looked ahead; candidates: N sequences scored for each environment."""

    horizon: int = 12
    candidates: int = 1000

    def __post_init__(self):
        checks.at_least_one(self, "planner", "horizon", "candidates")


def make_random_shooting(model, action_spec, config):
    """A Planner that draws sequences from CEM's first belief and takes the best one.

    That is N(0, 1), clipped to the action bounds, or equal probabilities of discrete actions.
    """
    check_horizon(model, config.horizon)
    beliefs = make_beliefs(action_spec)

    def plan(params, key, state):
        draw_key, model_key = jax.random.split(key)
        belief = beliefs.start(config.horizon)
        candidates = beliefs.draw(draw_key, belief, config.candidates)
        values = score(model, params, model_key, state, candidates)
        best = jnp.argmax(values)
        sequence = candidates[:, best]
        return Plan(beliefs.decide(sequence[0]), sequence, belief[1], values[best])

    return Planner(over_rows(plan, config.candidates))
