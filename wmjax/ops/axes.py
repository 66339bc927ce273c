"""Leading axes of arrays and pytrees: folding two into one, swapping them, moving along time, choosing rows."""

import jax
import jax.numpy as jnp


def fold(tree):
    """[P, Q, ...] -> [P*Q, ...] for every leaf."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def unfold_like(tree, other):
    """[P*Q, ...] -> [P, Q, ...] for every leaf, with P and Q as in the leaves of `other`."""
    lead = jax.tree.leaves(other)[0].shape[:2]
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), tree)


def time_first(x):
    """Swap the two leading axes."""
    return jnp.swapaxes(x, 0, 1)


def shift(x):
    """[B, T, ...] moved one step later in time; zeros (False) come in at t = 0."""
    return jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def where_rows(chosen, tree, other):
    """Rows of the leaves of `tree` where chosen, bool [B], and of those of `other` elsewhere."""

    def where(x, y):
        return jnp.where(chosen.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(where, tree, other)
