"""Gradients: scaling them, one step of an optimiser, and which of them are finite."""

import jax
import jax.numpy as jnp
import optax


def scale_gradient(x, factor):
    """x, whose gradient is multiplied by `factor`."""
    return jax.tree.map(lambda x: factor * x + jax.lax.stop_gradient((1 - factor) * x), x)


def clipped_adam(clip_norm, learning_rate, epsilon=1e-8):
    """An optax optimiser: Adam on gradients that are clipped to a global norm."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate, eps=epsilon))


def gradient_step(optimizer, grads, params, opt_state):
    """One step of an optax optimiser.

    Returns: (params, opt_state, metrics): grad_norm, the global norm of the gradients before the optimiser, and
      grad_finite, as `finite`.
    """
    updates, opt_state = optimizer.update(grads, opt_state, params)
    metrics = dict(grad_norm=optax.global_norm(grads), grad_finite=finite(grads))
    return optax.apply_updates(params, updates), opt_state, metrics


def finite(grads):
    """{path of a leaf, such as encoder/Dense_0/kernel: bool [], whether all of its numbers are finite}."""
    leaves = jax.tree.leaves_with_path(grads)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): jnp.isfinite(g).all() for path, g in leaves}
