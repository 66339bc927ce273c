"""The Bernoulli distribution over pixels in [0, 1] by its logits, as an error: not a density of grey pixels.

Where an image stays black, or white, its gradient soon vanishes; that of `continuous_bernoulli` goes on for ever.
"""

import chex
import jax


def log_prob(x, logits, event_dims):
    """Minus the cross-entropy of x in [0, 1] and `logits` of the same shape, summed over the last `event_dims` axes."""
    chex.assert_equal_shape([x, logits])
    return (x * logits - jax.nn.softplus(logits)).sum(axis=tuple(range(-event_dims, 0)))


def mean(logits):
    """The mean in (0, 1), elementwise."""
    return jax.nn.sigmoid(logits)
