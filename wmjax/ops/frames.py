"""Frames as networks take them. Stacks are made from single ones: a replay of stacks would hold each several times."""

import chex
import jax.numpy as jnp


def stack(obs, is_first, size):
    """The `size` newest frames at every step of some sequences, oldest first, in the channels.

    Args:
      obs: [B, T, X, Y, C]; is_first: bool [B, T].
      size: frames in a stack, at least 1.
    Returns:
      [B, T, X, Y, C * size]. Where an episode, or the sequence, has too few frames its first one stands for those
      before it, as in Atari's usual wrappers: sample T + size - 1 steps and drop the first size - 1.
    """
    chex.assert_rank([obs, is_first], [5, 2])
    time = jnp.arange(obs.shape[1])[None]
    began = jnp.maximum.accumulate(jnp.where(is_first, time, 0), axis=1)  # [B, T], the step the episode began at
    backs = range(size - 1, -1, -1)
    frames = [
        jnp.take_along_axis(obs, jnp.maximum(time - back, began)[..., None, None, None], axis=1) for back in backs
    ]
    return jnp.concatenate(frames, axis=-1)


def unit_pixels(obs):
    """uint8 -> float32 in [0, 1]."""
    return obs.astype(jnp.float32) / 255.0
