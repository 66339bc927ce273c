"""The cross-entropy method over action sequences (Rubinstein 1997; PlaNet, Algorithm 2), compiled and batched.

One scan over iterations; inside it one scan over the horizon advances all N candidates at once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax.planners.search import check_continuous, check_search, over_rows, score
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
        check_search(self.horizon, self.candidates)
        if self.iterations < 1:
            raise UsageError(f"planner iterations {self.iterations}: must be at least 1")
        if not 1 <= self.elites <= self.candidates:
            raise UsageError(f"planner elites {self.elites}: must be between 1 and candidates, {self.candidates}")
        if self.action not in ACTIONS:
            raise UsageError(f"planner action {self.action!r}: choose one of {', '.join(ACTIONS)}")


def make_cem(model, action_spec, config):
    """A Planner that refits a Gaussian belief to its best samples, starting from N(0, 1) at every call.

    Candidates are clipped to the action bounds before they are scored and refitted; the belief's deviation is the
    square root of the elites' biased variance (the authors' code; the paper prints a mean absolute deviation).
    The action is the first mean, or with config.action "best" that of the last iteration's best sample.
    """
    check_continuous(action_spec)

    def plan(params, key, state):
        def refit(belief, key):
            mean, std, *_ = belief
            draw_key, model_key = jax.random.split(key)
            noise = jax.random.normal(draw_key, (config.horizon, config.candidates, action_spec.size))
            candidates = jnp.clip(mean[:, None] + std[:, None] * noise, action_spec.low, action_spec.high)
            values, best = jax.lax.top_k(score(model, params, model_key, state, candidates), config.elites)
            elites = candidates[:, best]  # [H, K, A]
            return (elites.mean(axis=1), elites.std(axis=1), values.mean(), elites[0, 0]), None

        shape = (config.horizon, action_spec.size)
        belief = (jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()), jnp.zeros(shape[1:]))
        (mean, std, value, best), _ = jax.lax.scan(refit, belief, jax.random.split(key, config.iterations))
        return Plan(best if config.action == "best" else mean[0], mean, std, value)

    return Planner(over_rows(plan))
