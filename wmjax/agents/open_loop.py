"""Looking at a model's predictions: what it imagines beside what happened (PlaNet, Fig. 10)."""

import jax
import jax.numpy as jnp

from wmjax import imagine
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like


def open_loop_images(model, params, key, steps, *, action_spec, context):
    """Reconstructions of the first `context` images, then images imagined from the actions alone.

    Args: steps: Step [T, E, ...] with T > context >= 1.
    Returns: model.decode of each time, float32 [T, E, X, Y, C].
    """
    action = model_action(steps.prev_action, action_spec)  # [T, E, A]
    filter_key, imagine_key = jax.random.split(key)
    seen = jax.tree.map(lambda x: time_first(x[:context]), steps)  # [E, context, ...]
    state, states, _ = imagine.filter_steps(model, params, filter_key, seen, action_spec)
    imagined = imagine.open_loop(model, params, imagine_key, state, action[context:])
    both = jax.tree.map(lambda a, b: jnp.concatenate([time_first(a), b]), states, imagined)
    return unfold_like(model.decode(params, fold(both)), both)
