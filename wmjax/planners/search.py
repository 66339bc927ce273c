"""What planners share: scoring of action sequences, one search for every environment, the check of the horizon."""

import functools

import jax
import jax.numpy as jnp

from wmjax import imagine
from wmjax.ops.batching import vmap_or_map
from wmjax.types import UsageError

TOGETHER = 1_000_000  # bytes of candidates' states that one search may hold on a CPU: more would leave its caches


def score(model, params, key, state, candidates):
    """Predicted sum of rewards of action sequences; one sampled trajectory each (PlaNet, Algorithm 2, lines 5 and 6).

    Args: state of one environment, without the axis of rows; candidates float32 [H, N, A].
    Returns: float32 [N]. Rewards after a predicted end of the episode count as little as it is likely to go on.
    """
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (candidates.shape[1], *x.shape)), state)
    reward, discount = imagine.predict_rewards(model, params, key, many, candidates)
    goes_on = jax.lax.associative_scan(jnp.multiply, discount[:-1])  # cumprod: XLA folds that of constants for seconds
    return reward[0] + jnp.sum(goes_on * reward[1:], axis=0)


def over_rows(plan, candidates):
    """Plans for B environments from `plan` for one, (params, key, state without [B]) -> Plan without [B].

    Rows are searched side by side; on a CPU in turn, unless the states of all rows' candidates are few and small: then
    one row alone would not keep the cores busy. candidates: of a row.

    Where the value of a plan is NaN, as where a model diverged, its action is NaN: environments refuse that, and
    otherwise such plans would be acted on unseen. A discrete action, an int32, stays what it is.
    """

    def plan_all(params, key, state):
        leaves = jax.tree.leaves(state)
        keys = jax.random.split(key, leaves[0].shape[0])
        size = candidates * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        side_by_side = jax.vmap if size <= TOGETHER else vmap_or_map
        plans = side_by_side(functools.partial(plan, params))(keys, state)
        if not jnp.issubdtype(plans.action.dtype, jnp.floating):
            return plans
        return plans.replace(action=jnp.where(jnp.isnan(plans.value)[:, None], jnp.nan, plans.action))

    return plan_all


def check_horizon(model, horizon):
    """Raises UsageError if the model predicts the rewards of another horizon alone."""
    if model.horizon not in (None, horizon):
        raise UsageError(f"planner horizon {horizon}: this model predicts the rewards of {model.horizon} steps at once")
