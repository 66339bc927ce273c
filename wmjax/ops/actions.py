"""Actions as models take them."""

import jax
import jax.numpy as jnp


def model_action(action, spec):
    """An environment's action as a model's: float32 [..., A].

    Args: action float32 [..., A], or int32 [...] for a discrete `spec` (becomes one-hot rows); spec: ActionSpec.
    """
    if spec.discrete:
        return jax.nn.one_hot(action, spec.size, dtype=jnp.float32)
    return action.astype(jnp.float32)
