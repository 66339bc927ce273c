"""Random shooting: the best of many random action sequences (PlaNet, Fig. 5), and the scoring that planners share."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax import imagine
from wmjax.ops.mapped import mapped
from wmjax.types import Plan, Planner, UsageError


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


def over_rows(plan):
    """Plans for B environments from `plan` for one, (params, key, state without [B]) -> Plan without [B]."""

    def plan_all(params, key, state):
        keys = jax.random.split(key, jax.tree.leaves(state)[0].shape[0])
        return mapped(functools.partial(plan, params))(keys, state)

    return plan_all


def score(model, params, key, state, candidates):
    """Predicted sum of rewards of action sequences; one sampled trajectory each (PlaNet, Algorithm 2, lines 5 and 6).

    Args: state of one environment, without the axis of rows; candidates float32 [H, N, A].
    Returns: float32 [N]. Rewards after a predicted end of the episode count as little as it is likely to go on.
    """
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (candidates.shape[1], *x.shape)), state)
    states = imagine.open_loop(model, params, key, many, candidates)
    reward = imagine.rewards(model, params, states)
    discount = imagine.discounts(model, params, states)[:-1]
    goes_on = jax.lax.associative_scan(jnp.multiply, discount)  # cumprod: XLA folds that of constants for seconds
    return reward[0] + jnp.sum(goes_on * reward[1:], axis=0)


def check_search(horizon, candidates):
    """Raises UsageError unless there is something to search."""
    if horizon < 1:
        raise UsageError(f"planner horizon {horizon}: must be at least 1")
    if candidates < 1:
        raise UsageError(f"planner candidates {candidates}: must be at least 1")


def check_continuous(action_spec):
    """Raises UsageError for discrete actions, which Gaussian beliefs cannot search."""
    if action_spec.discrete:
        raise UsageError(f"this planner needs continuous actions, the environment has {action_spec.size} discrete ones")
