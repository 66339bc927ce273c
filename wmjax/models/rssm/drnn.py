"""The cell of PlaNet's DRNN: samples between a recurrent encoder and a recurrent decoder (Hafner et al. 2019, Fig. 8).

One step, with a action, e encoder's state, s sample, h decoder's state (the belief), o embedded image:

    e' = GRU(e, [o', a, s])        s' ~ p(s' | e', s, h)        h' = GRU(h, s')        features h'

One network is posterior and prior: it is the prior where o' is a vector of zeros. The paper gives this model half a
sentence; sizes and connections are those of the authors' code.
"""

import flax.linen as nn
import jax.numpy as jnp

from wmjax.nets.gru import GRU
from wmjax.nets.mlp import GaussianHead, glorot


def make_modules(config, activation):
    """The flax modules of the cell, by the name of their parameters."""
    return dict(
        embedding=nn.Dense(3 * config.deterministic, use_bias=False, kernel_init=glorot),  # zeros must give zeros
        encoder_gru=GRU(config.deterministic),
        latent=GaussianHead((config.hidden,), config.stochastic, activation, config.min_std),
        decoder_gru=GRU(config.deterministic),
    )


def example_inputs(config, embed, action):
    """Inputs of each module, one row of zeros: embed [1, D], action [1, A]."""
    sample, carry = jnp.zeros((1, config.stochastic)), jnp.zeros((1, config.deterministic))
    return dict(
        embedding=(embed,),
        encoder_gru=(carry, jnp.concatenate([action, sample], -1)),
        latent=(jnp.concatenate([carry, sample, carry], -1),),
        decoder_gru=(carry, sample),
    )


def make_cell(apply, draw):
    """(project, observe, imagine, features) of one step; apply and draw as in `make_model`."""

    def project(params, embedding):
        """[B, D] -> [B, 3 U], the embedding's share of the products in the encoder's GRU: one over all time steps."""
        return apply(params, "embedding", embedding)

    def believe(params, state, action, *projected):
        """The encoder's next state, mean and std of the next sample: the prior's, where nothing is projected."""
        inputs = jnp.concatenate([action, state.sample], -1)
        encoder = apply(params, "encoder_gru", state.encoder, inputs, *projected)
        mean, std = apply(params, "latent", jnp.concatenate([encoder, state.sample, state.belief], -1))
        return encoder, mean, std

    def arrive(params, key, state, encoder, mean, std):
        sample = draw(key, mean, std)
        belief = apply(params, "decoder_gru", state.belief, sample)
        return state.replace(mean=mean, std=std, sample=sample, belief=belief, encoder=encoder)

    def observe(params, key, state, prev_action, embed):
        _, *prior = believe(params, state, prev_action)
        return arrive(params, key, state, *believe(params, state, prev_action, embed)), tuple(prior)

    def imagine(params, key, state, action):
        return arrive(params, key, state, *believe(params, state, action))

    def features(state):
        return state.belief

    return project, observe, imagine, features
