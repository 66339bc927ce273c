"""The continuous Bernoulli distribution over pixels in [0, 1] (Loaiza-Ganem & Cunningham 2019), by its logits.

    p(x) = C(l) exp(x l) / (1 + exp(l))     C(l) = l / tanh(l / 2), its normaliser; 2 at l = 0

A Bernoulli's formula without C is no density over [0, 1]: grey pixels would be pushed to black and white.
C grows without end with |l|, so that an image with exactly black pixels would earn ever more for ever blacker
logits. As in the authors' library (PyTorch), C is therefore that of a probability clamped to [eps, 1 - eps], eps of
float32: beyond |l| = 15.94 it is constant and has no gradient.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

_SMALL = 0.5  # below this logit, series: exact to float32's precision where the formulas lose theirs
_EPSILON = float(np.finfo(np.float32).eps)
_LARGEST = float(np.log((1 - _EPSILON) / _EPSILON))  # the logit of probability 1 - eps


def log_prob(x, logits, event_dims):
    """Log density of x in [0, 1] under `logits` of the same shape, summed over the last `event_dims` axes."""
    chex.assert_equal_shape([x, logits])
    per_pixel = x * logits - jax.nn.softplus(logits) + log_normaliser(logits)
    return per_pixel.sum(axis=tuple(range(-event_dims, 0)))


def log_normaliser(logits):
    """log C, elementwise; constant beyond |l| = 15.94."""
    logits = jnp.clip(logits, -_LARGEST, _LARGEST)
    small = jnp.abs(logits) < _SMALL
    square = jnp.square(jnp.where(small, logits, 0.0))
    series = jnp.log(2.0) + jnp.log1p(square * (1 / 12 - square * (1 / 720 - square / 30240)))
    large = jnp.where(small, 1.0, jnp.abs(logits))
    return jnp.where(small, series, jnp.log(large) - jnp.log(jnp.tanh(large / 2)))


def mean(logits):
    """The mean in (0, 1), elementwise: 1 / (1 - exp(-l)) - 1 / l."""
    small = jnp.abs(logits) < _SMALL
    inner = jnp.where(small, logits, 0.0)
    series = 0.5 + inner * (1 / 12 - jnp.square(inner) * (1 / 720 - jnp.square(inner) / 30240))
    large = jnp.where(small, 1.0, logits)
    return jnp.where(small, series, -1 / jnp.expm1(-large) - 1 / large)
