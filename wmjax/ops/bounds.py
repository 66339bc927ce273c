"""Lower bounds on the log likelihood of a sequence, from a model with a latent at every step."""

import jax
import jax.numpy as jnp

from wmjax.ops import gaussian


def log_weights(log_likelihood, latent, prior, posterior):
    """log of p(x, z) / q(z | x) for latents drawn from q: one draw's bound, in nats a sequence.

    Args: log_likelihood [B, T], of what was seen, given the latents; latent [B, T, Z], the draws; prior, posterior:
      (mean, std) of each, [B, T, Z].
    Returns: [B]. Its mean over draws is the evidence lower bound.
    """
    ratio = gaussian.log_prob(latent, *prior) - gaussian.log_prob(latent, *posterior)
    return (log_likelihood + ratio).sum(axis=1)


def importance_weighted(weights):
    """The bound of K draws together (Burda et al. 2016): log of the mean weight. weights [K, B], in logs -> [B]."""
    return jax.nn.logsumexp(weights, axis=0) - jnp.log(weights.shape[0])
