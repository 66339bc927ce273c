"""KL annealing against posterior collapse: the KL's weight begins to rise once the images are good enough.

    relative image loss   1 (no better than the data's mean image)   ->   below `target`: the rise begins
    weight of the KL      FIRST_WEIGHT                                    times RISE at every update, up to 1

Not in the paper. As in GECO (Rezende & Viola 2018) the reconstruction decides when latents must pay. Here the weight
never falls or stops on its way, so that training ends with the evidence lower bound itself.
"""

import jax.numpy as jnp
from flax import struct

from wmjax.ops import bernoulli
from wmjax.types import Array

FIRST_WEIGHT = 1e-8  # see docs/lab/2026-11-22-mspacman.md
RISE = 1.05  # 378 updates from the first weight to 1
DECAY = 0.98  # of the moving average over updates


@struct.dataclass
class Annealing:
    """What the learner knows of the images' progress."""

    mean_image: Array  # float32 [rows, columns, c] in [0, 1], of all training images so far
    relative: Array  # float32 [], moving average: the model's image loss over the mean image's, at most 1
    kl_weight: Array  # float32 [], of the next update


def initial(obs_shape):
    """Before the first update."""
    return Annealing(jnp.zeros(obs_shape), jnp.ones(()), jnp.full((), FIRST_WEIGHT, jnp.float32))


def update(annealing, updates, images, image_loss, target):
    """The Annealing after one more batch.

    Args:
        updates: int32 [], batches before this one.
        images: float32 [N, rows, columns, c] in [0, 1], of the batch.
        image_loss: [], the model's, in nats an image.
        target: relative image loss in (0, 1) below which the weight's rise begins.
    """
    mean = annealing.mean_image + (images.mean(axis=0) - annealing.mean_image) / (updates + 1)
    constant = jnp.broadcast_to(bernoulli.logits(mean)[None], images.shape)
    share = jnp.minimum(image_loss / jnp.maximum(bernoulli.kl(images, constant, 3).mean(), 1e-6), 1)
    relative = DECAY * annealing.relative + (1 - DECAY) * share
    rises = (relative < target) | (annealing.kl_weight > FIRST_WEIGHT)
    weight = jnp.where(rises, jnp.minimum(RISE * annealing.kl_weight, 1), annealing.kl_weight)
    return Annealing(mean, relative, weight)
