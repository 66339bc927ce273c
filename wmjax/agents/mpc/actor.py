"""Model-predictive control: filter, plan, act with the first action, plan again (PlaNet, Algorithm 1)."""

import chex
import jax
import jax.numpy as jnp

from wmjax.ops.actions import model_action
from wmjax.types import Actor


def make_actor(model, planner, action_spec, config):
    """An Actor whose carry is the model's belief, one row for each environment; extras is the Plan.

    `explore` adds Normal(0, config.exploration_noise) and clips to the action bounds; with that probability it replaces
    a discrete action by one that is drawn uniformly.
    """

    def explored(key, action):
        if action_spec.discrete:
            chance_key, draw_key = jax.random.split(key)
            drawn = jax.random.randint(draw_key, action.shape, 0, action_spec.size)
            replaced = jax.random.uniform(chance_key, action.shape) < config.exploration_noise
            return jnp.where(replaced, drawn, action)
        return action + config.exploration_noise * jax.random.normal(key, action.shape)

    def act(params, key, carry, step, explore):
        chex.assert_rank(step.is_first, 1)
        chex.assert_equal_shape_prefix((step.is_first, *jax.tree.leaves(carry)), 1)  # one row would be broadcast
        observe_key, plan_key, noise_key = jax.random.split(key, 3)
        prev_action = model_action(step.prev_action, action_spec)
        embed = model.encode(params, step.obs)
        carry, _ = model.observe(params, observe_key, carry, prev_action, embed, step.is_first)
        if model.with_reward is not None:
            carry = model.with_reward(carry, step.reward)
        plan = planner.plan(params, plan_key, carry)
        action = jnp.where(explore, explored(noise_key, plan.action), plan.action)
        if not action_spec.discrete:
            action = jnp.clip(action, action_spec.low, action_spec.high)
        return carry, action, plan

    def initial(params, rows):
        return model.initial(params, rows)

    return Actor(initial, act)
