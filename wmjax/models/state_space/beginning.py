"""States that an agent makes anew from the newest images at every decision (Buesing et al. 2018, section 3)."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax.numpy as jnp

from wmjax.models.state_space.config import CONTEXT, model_action_size
from wmjax.models.state_space.model import MapState, make_model
from wmjax.ops import jumps
from wmjax.types import UsageError


class Begin(NamedTuple):
    """How the newest images make a state, s_t|t ~ p_init(o_{t-2c}, o_{t-c}, o_t), c the steps of a jump."""

    images: int  # 1 + 2 c, the newest images whose embeddings an agent keeps
    begin: Callable[..., MapState]
    # (params, embeds [B, images, X, Y, C], oldest first, an episode's first image in place of those before it) -> state


def make_begin(config, env_spec) -> Begin:
    """The Begin of a model, whose states its `imagine` and its heads take.

    They equal those of `observe` after an episode's first CONTEXT images, except that missing images count as seen: no
    `observe` may follow.

    Raises: UsageError for the kind ar, whose first state also depends on the actions between its images.
    """
    if config.kind == "ar":
        raise UsageError("model kind 'ar': not offered to agents, its states are made of images and actions")
    parts = make_model(config, env_spec)[1]
    images, size = jumps.rows(CONTEXT, config.jump), model_action_size(config, env_spec.action)

    def begin(params, embeds):
        chex.assert_axis_dimension(embeds, 1, images)
        return parts.start(params, embeds[:, :: config.jump], jnp.zeros((embeds.shape[0], CONTEXT, size)))

    return Begin(images, begin)
