"""The Bernoulli log likelihood of pixels in [0, 1] by logits: a cross-entropy, which is no density of grey pixels.

Its gradient vanishes once a pixel that is always black, or always white, is predicted as such.
"""

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import logit, xlogy


def log_prob(x, logits, event_dims):
    """Minus the cross-entropy of x in [0, 1] and `logits` of the same shape, summed over the last `event_dims` axes."""
    chex.assert_equal_shape([x, logits])
    return (x * logits - jax.nn.softplus(logits)).sum(axis=tuple(range(-event_dims, 0)))


def kl(x, logits, event_dims):
    """KL in nats of pseudo-probabilities x in [0, 1] and `logits` of the same shape, summed as in `log_prob`."""
    rest = jnp.maximum(1 - x, 0)  # a white pixel, divided by 255, is more than 1 in float32 on some devices
    entropy = -(xlogy(x, x) + xlogy(rest, rest)).sum(axis=tuple(range(-event_dims, 0)))
    return -log_prob(x, logits, event_dims) - entropy


def logits(mean):
    """The logits of pixels in [0, 1], elementwise; black and white count as half a step of 8 bits from the ends."""
    return logit(jnp.clip(mean, 0.5 / 255, 1 - 0.5 / 255))


def mean(logits):
    """The mean in (0, 1), elementwise."""
    return jax.nn.sigmoid(logits)
