"""Beliefs over action sequences, what a search samples from and learns: Gaussians, or categoricals of discrete actions.

A belief is (mean, std), float32 [H, A] each, every step and dimension apart. Of discrete actions it holds the
probabilities of each, [H, M], and the deviations of their one-hot rows; candidates are one-hot rows, as models take
them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Beliefs(NamedTuple):
    """Pure functions of one kind of belief."""

    start: Callable  # (horizon) -> belief
    draw: Callable  # (key, belief, count) -> candidates float32 [H, N, A]
    refit: Callable  # (elites [H, K, A]) -> belief
    decide: Callable  # (float32 [A], of a mean or a candidate) -> the action as the environment takes it


def make_beliefs(action_spec):
    """The Beliefs for an ActionSpec."""
    return categorical(action_spec) if action_spec.discrete else gaussian(action_spec)


def gaussian(action_spec):
    """Starts from N(0, 1); draws are clipped to the bounds; the deviation is the biased one (authors' code)."""

    def start(horizon):
        shape = (horizon, action_spec.size)
        return jnp.zeros(shape), jnp.ones(shape)

    def draw(key, belief, count):
        mean, std = belief
        noise = jax.random.normal(key, (mean.shape[0], count, mean.shape[1]))
        return jnp.clip(mean[:, None] + std[:, None] * noise, action_spec.low, action_spec.high)

    def refit(elites):
        return elites.mean(axis=1), elites.std(axis=1)

    return Beliefs(start, draw, refit, lambda action: action)


def categorical(action_spec):
    """Starts from equal probabilities; a refit counts the actions of the elites and of one uniform pseudo-elite.

    The pseudo-elite keeps the probability of an action that no elite chose above 0 (Laplace's rule of succession).
    """
    num_actions = action_spec.size

    def with_std(probability):
        return probability, jnp.sqrt(probability * (1 - probability))

    def start(horizon):
        return with_std(jnp.full((horizon, num_actions), 1 / num_actions))

    def draw(key, belief, count):
        logits = jnp.log(belief[0])[:, None]  # [H, 1, M]
        chosen = jax.random.categorical(key, logits, shape=(logits.shape[0], count))
        return jax.nn.one_hot(chosen, num_actions, dtype=jnp.float32)

    def refit(elites):
        return with_std((elites.sum(axis=1) + 1 / num_actions) / (elites.shape[1] + 1))

    return Beliefs(start, draw, refit, lambda action: jnp.argmax(action).astype(jnp.int32))
