"""Random actions, to collect first episodes and to compare with."""

import jax
import jax.numpy as jnp

from wmjax.ops.axes import where_rows
from wmjax.types import Actor


def make_random_actor(action_spec, hold=1):
    """An Actor that ignores everything and draws actions uniformly between the bounds, each for `hold` decisions.

    Its carry: (decisions so far, int32 [E]; the action of the last one).
    """

    def act(params, key, carry, step, explore):
        count, last = carry
        if action_spec.discrete:
            drawn = jax.random.randint(key, last.shape, 0, action_spec.size)
        else:
            drawn = jax.random.uniform(key, last.shape, minval=action_spec.low, maxval=action_spec.high)
        action = where_rows(count % hold == 0, drawn, last)
        return (count + 1, action), action, None

    def initial(params, rows):
        no_action = jnp.zeros(rows, jnp.int32) if action_spec.discrete else jnp.zeros((rows, action_spec.size))
        return jnp.zeros(rows, jnp.int32), no_action

    return Actor(initial, act)
