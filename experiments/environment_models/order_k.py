"""The auto-regressive model as a plain network of order K, for timing: all K images are embedded at every step.

The model itself keeps the embeddings of its K images and embeds the newest alone. Both imagine the same.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from wmjax.ops import bernoulli
from wmjax.ops.axes import fold
from wmjax.types import Array, EnvSpec, Params, State, WorldModel


def without_kept_embeddings(model: Any, order: int, env_spec: EnvSpec) -> WorldModel:
    """The WorldModel of kind ar for imagined steps; its states are (state without embeddings, images).

    Args: model: with embeddings kept; order: K of its config.
    images: float32 [B, K, rows, columns, c] in [0, 1], oldest first.
    """

    def initial(params: Params, batch: int) -> tuple[State, Array]:
        """K black images."""
        return forget(model.initial(params, batch)), jnp.zeros((batch, order, *env_spec.obs_shape))

    def step(params: Params, key: Array, state: tuple[Any, Array], action: Array) -> tuple[State, Array]:
        bare, images = state
        embeddings = model.encode(params, 255 * fold(images))
        embeddings = embeddings.reshape(*images.shape[:2], *embeddings.shape[1:])
        side_by_side = jnp.concatenate([embeddings[:, i] for i in range(order)], axis=-1)
        bare = bare.replace(context=bare.context.replace(embeddings=side_by_side))
        after = model.imagine(params, key, bare, action)
        return forget(after), jnp.concatenate([images[:, 1:], rendered(params, after)[:, None]], axis=1)

    def rendered(params: Params, state: State) -> Array:
        return bernoulli.mean(model.decode(params, state))

    def of_state(head: Callable) -> Callable:
        return lambda params, state: head(params, state[0])

    heads = {name: of_state(getattr(model, name)) for name in ("features", "reward", "discount", "decode")}
    return model._replace(initial=initial, imagine=step, **heads)


def forget(state: Any) -> State:
    """The state without its embeddings: what is not kept costs nothing."""
    context = state.context
    return state.replace(context=context.replace(embeddings=context.embeddings[..., :0]))
