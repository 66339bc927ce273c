"""Diagonal Gaussians: divergence, free nats, likelihood."""

import chex
import jax.numpy as jnp

from wmjax.ops.distributions import diagonal_gaussian


def kl_diagonal(mean1, std1, mean2, std2):
    """KL[N(mean1, std1) || N(mean2, std2)] in nats, summed over the last axis.

    Args: four arrays of the same shape [..., Z]; standard deviations > 0.
    Returns: [...].
    """
    chex.assert_equal_shape((mean1, mean2))
    return diagonal_gaussian(mean1, std1).kl_divergence(diagonal_gaussian(mean2, std2))


def free_nats(kl, nats):
    """The divergence loss with free nats: max(kl, nats) elementwise (PlaNet, appendix A). kl [...] in nats."""
    return jnp.maximum(kl, nats)


def unit_log_prob(value, mean, event_axes):
    """log N(value; mean, 1) without its constant, in nats, summed over the last `event_axes` axes.

    Args: value, mean [..., *event]; event_axes: how many trailing axes are one event.
    Returns: [...]. Equals minus half the squared error (PlaNet, section 3).
    """
    chex.assert_equal_shape((value, mean))
    axes = tuple(range(value.ndim - event_axes, value.ndim))
    return -0.5 * jnp.sum(jnp.square(value - mean), axis=axes)


def log_prob(value, mean, std):
    """log N(value; mean, std) in nats, summed over the last axis; three arrays of the same shape [..., Z] -> [...]."""
    chex.assert_equal_shape((value, mean))
    return diagonal_gaussian(mean, std).log_prob(value)
