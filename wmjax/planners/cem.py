"""The cross-entropy method over action sequences (Rubinstein 1997; PlaNet, Algorithm 2), compiled and batched.

One scan over iterations; inside it one scan over the horizon advances all B * N candidates at once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax.planners.shooting import check_continuous, check_search, score
from wmjax.types import Plan, Planner, UsageError


@dataclass(frozen=True)
class CEMConfig:
    """horizon H, iterations I, candidates J and elites K of PlaNet's Algorithm 2; defaults: appendix A."""

    horizon: int = 12
    iterations: int = 10
    candidates: int = 1000
    elites: int = 100

    def __post_init__(self):
        check_search(self.horizon, self.candidates)
        if self.iterations < 1:
            raise UsageError(f"planner iterations {self.iterations}: must be at least 1")
        if not 1 <= self.elites <= self.candidates:
            raise UsageError(f"planner elites {self.elites}: must be between 1 and candidates, {self.candidates}")


def make_cem(model, action_spec, config):
    """A Planner that refits a Gaussian belief to its best samples, starting from N(0, 1) at every call.

    Candidates are clipped to the action bounds before they are scored and refitted; the belief's deviation is the
    square root of the elites' biased variance (the authors' code; the paper prints a mean absolute deviation).
    The action is the first mean, not the best sample.
    """
    check_continuous(action_spec)

    def plan(params, key, state):
        rows = jax.tree.leaves(state)[0].shape[0]
        shape = (config.horizon, rows, action_spec.size)

        def refit(belief, key):
            mean, std, _ = belief
            draw_key, model_key = jax.random.split(key)
            noise = jax.random.normal(draw_key, (config.horizon, rows, config.candidates, action_spec.size))
            candidates = jnp.clip(mean[:, :, None] + std[:, :, None] * noise, action_spec.low, action_spec.high)
            values, best = jax.lax.top_k(score(model, params, model_key, state, candidates), config.elites)
            elites = jnp.take_along_axis(candidates, best[None, :, :, None], axis=2)  # [H, B, K, A]
            return (elites.mean(axis=2), elites.std(axis=2), values.mean(axis=1)), None

        belief = (jnp.zeros(shape), jnp.ones(shape), jnp.zeros(rows))
        (mean, std, value), _ = jax.lax.scan(refit, belief, jax.random.split(key, config.iterations))
        return Plan(mean[0], jnp.swapaxes(mean, 0, 1), jnp.swapaxes(std, 0, 1), value)

    return Planner(plan)
