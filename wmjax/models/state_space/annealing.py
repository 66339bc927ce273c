"""KL annealing against posterior collapse: the KL's weight rises as the images improve. Not in the paper.

    relative image loss   1 (no better than the data's mean image)   ->   target and below
    weight of the KL      FIRST_WEIGHT                      geometrically ->   1

As in GECO (Rezende & Viola 2018) the reconstruction decides what latents may cost. Here the weight follows the lowest
relative loss so far, so that it never falls, and training ends with the evidence lower bound itself.
"""

import jax.numpy as jnp
from flax import struct

from wmjax.ops import bernoulli
from wmjax.types import Array

FIRST_WEIGHT = 1e-8  # see BUILD_NOTES.md
DECAY = 0.98  # of the moving average over updates


@struct.dataclass
class Annealing:
    """What the learner knows of the images' progress."""

    mean_image: Array  # float32 [8 X, 8 Y, c] in [0, 1], of all training images so far
    relative: Array  # float32 [], moving average: the model's image loss over the mean image's, at most 1
    reached: Array  # float32 [], the lowest `relative` so far


def initial(obs_shape):
    """Nothing seen, nothing reached."""
    return Annealing(jnp.zeros(obs_shape), jnp.ones(()), jnp.ones(()))


def kl_weight(annealing, target):
    """Weight of the KL in the loss, float32 []. target: relative image loss in [0, 1) at which it is 1."""
    remaining = jnp.maximum(annealing.reached - target, 0) / (1 - target)
    return FIRST_WEIGHT**remaining


def follow(annealing, updates, images, image_loss):
    """The Annealing after one more batch.

    Args:
        updates: int32 [], batches before this one.
        images: float32 [N, 8 X, 8 Y, c] in [0, 1], of the batch.
        image_loss: [], the model's, in nats an image.
    """
    mean = annealing.mean_image + (images.mean(axis=0) - annealing.mean_image) / (updates + 1)
    constant = jnp.broadcast_to(bernoulli.logits(mean)[None], images.shape)
    share = jnp.minimum(image_loss / jnp.maximum(bernoulli.kl(images, constant, 3).mean(), 1e-6), 1)
    relative = DECAY * annealing.relative + (1 - DECAY) * share
    return Annealing(mean, relative, jnp.minimum(annealing.reached, relative))
