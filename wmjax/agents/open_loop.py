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


def restarted_images(model, params, key, steps, *, action_spec, every):
    """Images of whole episodes, imagined from the actions alone but for every `every`-th belief, where it restarts.

        time    0       1       2       3       4       5
        every=3 belief  prior   prior   belief  prior   prior

    Args: steps: Step [T, E, ...] with T a multiple of `every` >= 2.
    Returns: model.decode of each time, float32 [T, E, X, Y, C].
    """
    action = model_action(steps.prev_action, action_spec)  # [T, E, A]
    time, rows, size = action.shape
    filter_key, imagine_key = jax.random.split(key)
    _, states, _ = imagine.filter_steps(model, params, filter_key, jax.tree.map(time_first, steps), action_spec)
    starts = fold(jax.tree.map(lambda x: x[:, ::every], states))  # [E * K] of K restarts
    ahead = action.reshape(time // every, every, rows, size)[:, 1:]  # [K, every - 1, E, A]
    ahead = ahead.transpose(1, 2, 0, 3).reshape(every - 1, -1, size)  # [every - 1, E * K, A]
    imagined = imagine.open_loop(model, params, imagine_key, starts, ahead)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), starts, imagined)  # [every, E * K]
    images = jax.lax.map(lambda states: model.decode(params, states), both)
    images = images.reshape(every, rows, -1, *images.shape[2:])  # [every, E, K, X, Y, C]
    return jnp.moveaxis(images, 2, 0).reshape(time, rows, *images.shape[3:])
