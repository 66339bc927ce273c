"""What stands on the grid: codes of a codebook (the paper's own), or normally distributed numbers (section 4.3, Q2).

An embedding is what the encoder says of an image, a prior what the dynamics predict of the next latent:

                 embedding                          prior                    latent
    discrete     a vector, code the nearest one     logits of the codes      the code's vector
    continuous   mean and log variance              mean and log variance    a sample

In one dimension the positions of a discrete grid stand in one column; a continuous grid becomes one vector.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wmjax.ops import gaussian
from wmjax.ops import vector_quantisation as vq


class Latents(NamedTuple):
    """Pure functions of one kind of latent, with leading axes [..., X, Y]; params: of the whole model."""

    shape: tuple[int, int, int]  # (X, Y, D) of a latent
    prior_size: int  # numbers of a prior at each position
    embed: Callable  # encoder's grid [B, X0, Y0, E0] -> embedding [B, X, Y, E]
    grid: Callable  # latent [B, X, Y, D] -> [B, X0, Y0, D0], for the decoder
    posterior_sample: Callable  # (params, key, embedding) -> latent
    prior_sample: Callable  # (params, key, prior) -> latent
    divergence: Callable  # (params, prior, embedding) -> [...]: divergence of the prior from what was seen
    prediction_metrics: Callable  # (params, key, prior, embedding) -> metrics [...] of how well it was predicted
    autoencode: Callable  # (params, key, embedding) -> (latent, KL from the autoencoder's prior [B], loss, metrics)
    codes: Callable  # (params, latent [B, X, Y, D]) -> int32 [B, X0, Y0]: codes; if continuous, bins of [-2, 2]
    ema_update: Callable  # (params, key, embedding) -> (changes of params that no gradient makes, metrics)


def make_latents(config, grid):
    """The Latents of a VQConvLSTMConfig. grid: (X0, Y0) of the encoder."""
    return discrete(config, grid) if config.latent == "discrete" else continuous(config, grid)


def discrete(config, grid):
    """Discrete codes: deterministic posterior, uniform prior."""
    positions = grid if config.dimensions == 2 else (grid[0] * grid[1], 1)

    def embed(x):
        return x.reshape(x.shape[0], *positions, config.code_size)

    def to_grid(latent):
        return latent.reshape(latent.shape[0], *grid, config.code_size)

    def nearest(params, embedding):
        return vq.nearest(params["codebook"].vectors, embedding)

    def quantise(params, embedding):
        return params["codebook"].vectors[nearest(params, embedding)]

    def posterior_sample(params, key, embedding):
        return vq.straight_through(embedding, quantise(params, embedding))

    def prior_sample(params, key, prior):
        return params["codebook"].vectors[jax.random.categorical(key, prior)]

    def divergence(params, prior, embedding):
        codes = nearest(params, embedding)
        return -jnp.take_along_axis(jax.nn.log_softmax(prior), codes[..., None], axis=-1)[..., 0].sum((-2, -1))

    def prediction_metrics(params, key, prior, embedding):
        codes = nearest(params, embedding)
        return dict(latent_accuracy=(jax.random.categorical(key, prior) == codes).mean((-2, -1)))

    def autoencode(params, key, embedding):
        quantised = quantise(params, embedding)
        commitment = jnp.square(embedding - quantised).mean()
        constant = jnp.full(embedding.shape[0], positions[0] * positions[1] * jnp.log(config.codes))
        latent = vq.straight_through(embedding, quantised)
        return latent, constant, config.commitment * commitment, dict(commitment=commitment)

    def ema_update(params, key, embedding):
        return update_codebook(config, params["codebook"], key, embedding, nearest(params, embedding))

    def codes_of(params, latent):
        return nearest(params, latent).reshape(-1, *grid)

    return Latents(
        shape=(*positions, config.code_size),
        prior_size=config.codes,
        embed=embed,
        grid=to_grid,
        posterior_sample=posterior_sample,
        prior_sample=prior_sample,
        divergence=divergence,
        prediction_metrics=prediction_metrics,
        autoencode=autoencode,
        codes=codes_of,
        ema_update=ema_update,
    )


def update_codebook(config, codebook, key, embedding, codes):
    """({"codebook": moved towards the embeddings [N, X, Y, E] of each of its codes, int32 [N, X, Y]}, metrics)."""
    outputs, flat = embedding.reshape(-1, config.code_size), codes.reshape(-1)
    codebook = vq.update(codebook, outputs, flat, decay=config.codebook_decay, epsilon=config.codebook_epsilon)
    if config.restart_below > 0:
        codebook = vq.restart(codebook, key, outputs, config.restart_below)
    return dict(codebook=codebook), dict(perplexity=vq.perplexity(codes, config.codes))


def continuous(config, grid):
    """One normally distributed number at each position; the autoencoder's prior is standard normal."""
    shape = (*grid, 1) if config.dimensions == 2 else (1, 1, grid[0] * grid[1])

    def embed(x):
        moments = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], 2, *shape)
        return jnp.concatenate([moments[:, 0], moments[:, 1]], axis=-1)

    def to_grid(latent):
        return latent.reshape(latent.shape[0], *grid, 1)

    def sample(params, key, moments):
        mean, std = mean_std(moments)
        return mean + std * jax.random.normal(key, mean.shape)

    def divergence(params, prior, embedding):
        return gaussian.kl_diagonal(*mean_std(embedding), *mean_std(prior)).sum((-2, -1))

    def prediction_metrics(params, key, prior, embedding):
        (predicted, _), (observed, _) = mean_std(prior), mean_std(embedding)
        return dict(latent_error=jnp.square(predicted - observed).mean((-3, -2, -1)))

    def autoencode(params, key, embedding):
        mean, std = mean_std(embedding)
        kl = gaussian.kl_diagonal(mean, std, jnp.zeros_like(mean), jnp.ones_like(std)).sum((-2, -1))
        return sample(params, key, embedding), kl, jnp.zeros(()), {}

    def codes_of(params, latent):
        return jnp.floor(jnp.clip(4 * latent + 8, 0, 15)).astype(jnp.int32).reshape(-1, *grid)

    return Latents(
        shape=shape,
        prior_size=2 * shape[-1],
        embed=embed,
        grid=to_grid,
        posterior_sample=sample,
        prior_sample=sample,
        divergence=divergence,
        prediction_metrics=prediction_metrics,
        autoencode=autoencode,
        codes=codes_of,
        ema_update=lambda params, key, embedding: ({}, {}),
    )


def mean_std(moments):
    """[..., 2 * D] -> two arrays [..., D]."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean, jnp.exp(0.5 * log_variance)
