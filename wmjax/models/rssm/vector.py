"""Vectors beside images: where an environment shows {"image": ..., "vector": [B, V]}, both make up the embedding, and
the features of a state predict both. Not in the paper.

The likelihood of a vector is a unit Gaussian, as of an image: numbers far from -1 to 1 outweigh the rest of the loss.
Without vectors there are no such networks, and nothing changes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from wmjax.nets.casting import make_apply
from wmjax.nets.mlp import MLP
from wmjax.ops import gaussian
from wmjax.ops.axes import fold
from wmjax.types import vector_of


def make_modules(config, size):
    """The networks by the name of their parameters. size: V."""
    activation = dict(relu=nn.relu, elu=nn.elu)[config.activation]
    widths = (config.vector_units,) * 2
    return dict(
        vector_encoder=MLP(widths, config.vector_units, activation), vector_decoder=MLP(widths, size, activation)
    )


def init_params(key, config, env_spec, features):
    """Parameters of both networks, {} without vectors. key: the model's; features: an example, [1, F]."""
    vector = vector_of(env_spec.obs)
    if vector is None:
        return {}
    encoder, decoder = make_modules(config, *vector.shape).values()
    encoder_key, decoder_key = jax.random.split(jax.random.fold_in(key, 1))  # those of the other networks stay
    seen = encoder.init(encoder_key, jnp.zeros((1, *vector.shape)))
    return dict(vector_encoder=seen, vector_decoder=decoder.init(decoder_key, features))


def embed(config, params, image, obs):
    """The embedding of an image [B, D] with that of the vector behind it, [B, D + vector_units]; obs as of `Step`."""
    vector = vector_of(obs)
    if vector is None:
        return image
    apply = make_apply(config, make_modules(config, vector.shape[-1]))
    return jnp.concatenate([image, apply(params, "vector_encoder", vector)], -1)


def vector_loss(config, params, features, vector):
    """Half the squared error, summed over V, the mean over the batch. features [B * T, F]; vector [B, T, V]."""
    apply = make_apply(config, make_modules(config, vector.shape[-1]))
    return -gaussian.unit_log_prob(fold(vector), apply(params, "vector_decoder", features), 1).mean()
