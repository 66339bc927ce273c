"""Actions as models take them."""

import chex
import jax
import jax.numpy as jnp


def model_action(action, spec):
    """An environment's action as a model's: float32 [..., A].

    Args: action float32 [..., A], or int32 [...] for a discrete `spec` (becomes one-hot rows, zeros of a number that is
      no action); spec: ActionSpec.
    """
    if spec.discrete:
        chex.assert_type(action, int)
        return jax.nn.one_hot(action, spec.size, dtype=jnp.float32)
    chex.assert_axis_dimension(action, -1, spec.size)
    return action.astype(jnp.float32)
