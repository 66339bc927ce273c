"""Acting with a policy on latent states: in a world model's imagination, and in a real environment."""

import jax
import jax.numpy as jnp

from wmjax.types import Actor


def make_policy(network, params, temperature=1.0):
    """policy(key, features [B, ...]) -> one-hot actions, float32 [B, M], sampled: what `imagine.closed_loop` asks for.

    Args: network: a flax module, features -> (logits [B, M], value), with M as its `actions`; params: its parameters;
      temperature: of the samples; 1 in the paper's simulations.
    """

    def policy(key, features):
        logits, _ = network.apply(params, features)
        return jax.nn.one_hot(jax.random.categorical(key, logits / temperature), network.actions, dtype=jnp.float32)

    return policy


def make_actor(model, network, config):
    """An Actor that sees only the present image's latent (section 3.3.1): no carry; extras are the logits [E, M].

    params: dict(model=..., policy=...). `explore` samples with config.temperature (Equation 19); otherwise samples too,
    with temperature 1, as the paper evaluates.
    """

    def act(params, key, carry, step, explore):
        observe_key, sample_key = jax.random.split(key)
        rows = step.is_first.shape[0]
        no_past = model.initial(params["model"], rows)
        no_action = jnp.zeros((rows, network.actions))
        embed = model.encode(params["model"], step.obs)
        always_first = jnp.ones(rows, bool)
        state, _ = model.observe(params["model"], observe_key, no_past, no_action, embed, always_first)
        logits, _ = network.apply(params["policy"], model.features(params["model"], state))
        action = jax.random.categorical(sample_key, logits / jnp.where(explore, config.temperature, 1.0))
        return carry, action, logits

    def initial(params, rows):
        return ()

    return Actor(initial, act)
