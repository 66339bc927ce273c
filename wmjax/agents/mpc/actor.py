"""Model-predictive control: filter, plan, act with the first action, plan again (PlaNet, Algorithm 1)."""

import jax
import jax.numpy as jnp

from wmjax.ops.actions import model_action
from wmjax.types import Actor


def make_actor(model, planner, action_spec, config):
    """An Actor whose carry is the model's belief, one row for each environment; extras is the Plan.

    `explore` adds Normal(0, config.exploration_noise) and clips to the action bounds.
    """

    def act(params, key, carry, step, explore):
        observe_key, plan_key, noise_key = jax.random.split(key, 3)
        prev_action = model_action(step.prev_action, action_spec)
        embed = model.encode(params, step.obs)
        carry, _ = model.observe(params, observe_key, carry, prev_action, embed, step.is_first)
        plan = planner.plan(params, plan_key, carry)
        noise = config.exploration_noise * jax.random.normal(noise_key, plan.action.shape)
        action = jnp.clip(plan.action + jnp.where(explore, noise, 0.0), action_spec.low, action_spec.high)
        return carry, action, plan

    def initial(params, rows):
        return model.initial(params, rows)

    return Actor(initial, act)


def make_random_actor(action_spec, hold=1):
    """An Actor that ignores everything and draws actions uniformly between the bounds, each for `hold` decisions.

    Its carry: (decisions so far, int32 [E]; the action of the last one).
    """

    def act(params, key, carry, step, explore):
        count, last = carry
        if action_spec.discrete:
            drawn = jax.random.randint(key, last.shape, 0, action_spec.size)
        else:
            drawn = jax.random.uniform(key, last.shape, minval=action_spec.low, maxval=action_spec.high)
        again = (count % hold == 0).reshape(-1, *(1,) * (last.ndim - 1))
        action = jnp.where(again, drawn, last)
        return (count + 1, action), action, None

    def initial(params, rows):
        none = jnp.zeros(rows, jnp.int32) if action_spec.discrete else jnp.zeros((rows, action_spec.size))
        return jnp.zeros(rows, jnp.int32), none

    return Actor(initial, act)
