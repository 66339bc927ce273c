"""The cross-entropy method over action sequences (Rubinstein 1997; PlaNet, Algorithm 2), compiled and batched.

One scan over iterations; inside it one scan over the horizon advances all N candidates at once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax import checks
from wmjax.planners.beliefs import make_beliefs
from wmjax.planners.search import check_horizon, over_rows, score
from wmjax.types import Plan, Planner, UsageError

ACTIONS = ("mean", "best")


@dataclass(frozen=True)
class CEMConfig:
    """horizon H, iterations I, candidates J and elites K of PlaNet's Algorithm 2; defaults: appendix A.

    action: what is done now, the first of the belief's mean (PlaNet) or of the last iteration's best sample (the code
    of the trade-offs study).
    """

    horizon: int = 12
    iterations: int = 10
    candidates: int = 1000
    elites: int = 100
    action: str = "mean"

    def __post_init__(self):
        checks.at_least_one(self, "planner", "horizon", "candidates", "iterations")
        if not 1 <= self.elites <= self.candidates:
            raise UsageError(f"planner elites {self.elites}: must be between 1 and candidates, {self.candidates}")
        checks.one_of(self, "planner", action=ACTIONS)


def make_cem(model, action_spec, config):
    """A Planner that refits a belief to its best samples, starting anew at every call.

    Beliefs are Gaussians that start from N(0, 1), or categoricals of discrete actions (`planners/beliefs.py`).
    Candidates are clipped to the action bounds before they are scored and refitted; the belief's deviation is the
    square root of the elites' biased variance (the authors' code; the paper prints a mean absolute deviation).
    The action is the first mean (the likeliest of discrete actions), or with config.action "best" that of the last
    iteration's best sample.
    """
    check_horizon(model, config.horizon)
    beliefs = make_beliefs(action_spec)

    def plan(params, key, state):
        def iteration(carry, key):
            belief, _, _ = carry
            draw_key, model_key = jax.random.split(key)
            candidates = beliefs.draw(draw_key, belief, config.candidates)
            values, best = jax.lax.top_k(score(model, params, model_key, state, candidates), config.elites)
            elites = candidates[:, best]  # [H, K, A]
            return (beliefs.refit(elites), values.mean(), elites[0, 0]), None

        start = (beliefs.start(config.horizon), jnp.zeros(()), jnp.zeros(action_spec.size))
        ((mean, std), value, best), _ = jax.lax.scan(iteration, start, jax.random.split(key, config.iterations))
        return Plan(beliefs.decide(best if config.action == "best" else mean[0]), mean, std, value)

    return Planner(over_rows(plan, config.candidates))
