"""Which steps of a chunk count in a loss, where chunks may cross from one episode into the next."""

import jax.numpy as jnp


def predictable_steps(is_first, context):
    """The steps whose prediction belongs to the episode that it started from.

    A model sees the first `context` steps of a chunk and imagines the others from the actions alone. A step into
    another episode cannot be predicted; a seen step after it can again, but no imagined one.

    Args: is_first: bool [B, T]; context: from 1 to T.
    Returns: bool [B, T - 1], of all steps but the first.
    """
    imagined = jnp.cumsum(is_first[:, context:], axis=1) == 0
    return jnp.concatenate([~is_first[:, 1:context], imagined], axis=1)
