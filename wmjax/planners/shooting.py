"""Random shooting: the best of many random action sequences (PlaNet, Fig. 5), and the scoring that planners share."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wmjax import imagine
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
        rows = jax.tree.leaves(state)[0].shape[0]
        shape = (config.horizon, rows, config.candidates, action_spec.size)
        candidates = jnp.clip(jax.random.normal(draw_key, shape), action_spec.low, action_spec.high)
        values = score(model, params, model_key, state, candidates)
        best = jnp.argmax(values, axis=1)
        sequence = jnp.take_along_axis(candidates, best[None, :, None, None], axis=2)[:, :, 0]  # [H, B, A]
        sequence = jnp.swapaxes(sequence, 0, 1)
        return Plan(sequence[:, 0], sequence, jnp.ones_like(sequence), values.max(axis=1))

    return Planner(plan)


def score(model, params, key, state, candidates):
    """Predicted sum of rewards of action sequences; one sampled trajectory each (PlaNet, Algorithm 2, lines 5 and 6).

    Args: state of B rows; candidates float32 [H, B, N, A].
    Returns: float32 [B, N]. Rewards after a predicted end of the episode count as little as it is likely to go on.
    """
    horizon, rows, count, size = candidates.shape
    many = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), state)  # row b stands at b * N ... b * N + N - 1
    states = imagine.open_loop(model, params, key, many, candidates.reshape(horizon, rows * count, size))
    reward = imagine.rewards(model, params, states)
    discount = imagine.discounts(model, params, states)[:-1]
    goes_on = jax.lax.associative_scan(jnp.multiply, discount)  # cumprod: XLA folds that of constants for seconds
    value = reward[0] + jnp.sum(goes_on * reward[1:], axis=0)
    return value.reshape(rows, count)


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
