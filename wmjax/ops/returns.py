"""Returns and advantages along one sequence."""

import chex
import jax
import jax.numpy as jnp


def generalized_advantage(reward, value, discount, *, decay):
    """Generalised advantage estimation (Schulman et al. 2016) of one sequence; `jax.vmap` it over rows.

        error_t     = reward_t + discount_t * value_t+1 - value_t
        advantage_t = error_t + decay * discount_t * advantage_t+1      (0 after the last)

    A discount of 0 ends an episode: nothing beyond it counts. A sequence that is merely cut goes on in its last value.

    Args:
      reward: float32 [H], on arriving after each decision; value: float32 [H + 1], before each decision and at the end.
      discount: float32 [H], gamma times the probability that the episode goes on after that decision.
      decay: lambda in [0, 1]; 0: the one-step error, 1: the discounted return less the value.
    Returns:
      float32 [H].
    """
    chex.assert_rank([reward, value, discount], 1)
    chex.assert_equal_shape((reward, discount, value[1:]))
    error = reward + discount * value[1:] - value[:-1]

    def step(later, inputs):
        error, discount = inputs
        advantage = error + decay * discount * later
        return advantage, advantage

    return jax.lax.scan(step, jnp.zeros((), error.dtype), (error, discount), reverse=True)[1]
