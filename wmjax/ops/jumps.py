"""Abstraction in time: every c-th observation of a sequence (Buesing et al. 2018, section 2.2)."""

import jax.numpy as jnp

from wmjax.types import UsageError


def rows(steps, jump):
    """The length of a chunk that `subsample` turns into `steps` rows."""
    return 1 + (steps - 1) * jump


def subsample(obs, action, reward, jump):
    """Sequences at every `jump`-th step: their actions side by side, their rewards summed.

    Args: obs [B, T, ...]; action [B, T, A], that led to each; reward [B, T]; T = 1 + n * jump.
    Returns: the same with n + 1 steps, actions [B, n + 1, jump * A]. What led to the first observation is zero.
    Raises: UsageError for another T.
    """
    batch, time, size = action.shape
    steps, rest = divmod(time - 1, jump)
    if rest:
        raise UsageError(f"{time} rows of a sequence: a model that jumps {jump} steps needs 1 + a multiple of them")
    action = action[:, 1:].reshape(batch, steps, jump * size)
    reward = reward[:, 1:].reshape(batch, steps, jump).sum(axis=2)
    zero = ((0, 0), (1, 0))
    return obs[:, ::jump], jnp.pad(action, (*zero, (0, 0))), jnp.pad(reward, zero)
