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
