"""Stacks of frames against a plain loop."""

import jax.numpy as jnp
import numpy as np

from wmjax.ops import frames


def sequences():
    """(obs [2, 9, 2, 3, 2], is_first [2, 9]): episodes of several lengths, one of a single row."""
    obs = np.random.default_rng(0).integers(0, 256, (2, 9, 2, 3, 2)).astype(np.uint8)
    is_first = np.zeros((2, 9), bool)
    is_first[0, [0, 4, 5]] = True  # row 1 starts inside an episode
    return obs, is_first


def looped(obs, is_first, size):
    """A deque that an episode's first frame fills."""
    out = np.zeros((*obs.shape[:-1], obs.shape[-1] * size), obs.dtype)
    for b in range(obs.shape[0]):
        kept = None
        for t in range(obs.shape[1]):
            kept = [obs[b, t]] * size if kept is None or is_first[b, t] else [*kept[1:], obs[b, t]]
            out[b, t] = np.concatenate(kept, axis=-1)
    return out


def test_stack_equals_a_loop():
    obs, is_first = sequences()
    for size in (1, 2, 4):
        np.testing.assert_array_equal(
            frames.stack(jnp.array(obs), jnp.array(is_first), size), looped(obs, is_first, size)
        )
