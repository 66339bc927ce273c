"""Many agents in one program: pytrees with a leading axis of members [S], one for each seed (S = 1: a single run)."""

import jax


def member(tree, i):
    """Member i of a pytree with leading axes [S], or what another index takes."""
    return jax.tree.map(lambda x: x[i], tree)


def by_member(tree, members, axis=0):
    """Splits an axis of environment rows, [S * E] -> [S, E], in every array."""

    def split(x):
        return x.reshape(*x.shape[:axis], members, -1, *x.shape[axis + 1 :])

    return jax.tree.map(split, tree)


def over_members(function):
    """`function` of pytrees with leading axes [S], one member each: by vmap, on CPU one member after the other.

    For work that fills a device: a CPU gains nothing from doing several at once, and loses its cache.
    """
    if jax.default_backend() == "cpu":
        return lambda *args: jax.lax.map(lambda each: function(*each), args)
    return jax.vmap(function)
