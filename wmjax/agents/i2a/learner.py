"""Advantage actor-critic (Mnih et al. 2016) of an agent that looks at imagined rollouts (Buesing et al. 2018)."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from wmjax.ops import distributions
from wmjax.ops.axes import fold, time_first
from wmjax.ops.frames import unit_pixels
from wmjax.ops.gradients import clipped_adam, gradient_step
from wmjax.ops.returns import generalized_advantage
from wmjax.types import Learner, LearnerState, Params, Step, image_of


@struct.dataclass
class Unroll:
    """n decisions of E rows, time first, as acting made them with the very parameters that learn from them."""

    model: Params  # of the frozen model
    steps: Step  # [n + 1, E, ...]: the arrivals before the decisions, and the last one
    seen: Any  # [n + 1, ...], what the agent saw at each


def make(config, agent):
    """A Learner of an I2AConfig and its Agent, whose batch is an Unroll."""
    optimizer = clipped_adam(config.clip_norm, config.learning_rate, config.adam_epsilon)

    def init(key):
        params = agent.init(key)
        return LearnerState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(state, key, unroll):
        grads, metrics = jax.grad(actor_critic_loss, argnums=2, has_aux=True)(config, agent, state.params, unroll)
        params, opt_state, more = gradient_step(optimizer, grads, state.params, state.opt_state)
        return LearnerState(params, opt_state, state.updates + 1), metrics | more

    return Learner(init, update)


def act_and_learn(act, update, model, state, playing, key):
    """One update of an agent on what it does next.

    Args:
        act: (params, key, playing) -> (playing, Step [n + 1, E], seen): n decisions, as of `wmjax.run.unroll`.
        update: of a Learner whose batch is an Unroll.
        model: parameters of the frozen model.
        state: LearnerState.
        playing: where the E rows are.
    Returns:
        (state, playing, metrics, Step [n + 1, E]).
    """
    act_key, update_key = jax.random.split(key)
    playing, steps, seen = act(dict(model=model, agent=state.params), act_key, playing)
    state, metrics = update(state, update_key, Unroll(model, steps, seen))
    return state, playing, metrics, steps


def actor_critic_loss(config, agent, params, unroll):
    """The policy gradient's loss, the value's error, the entropies, the distillation; metrics hold the unscaled parts.

    Args: params: of the agent; unroll: Unroll.
    """
    decided = agent.decide(dict(model=unroll.model, agent=params), image_of(unroll.steps.obs), unroll.seen)
    counts = ~unroll.steps.is_last[:-1]  # an action on an episode's last row leads nowhere
    advantage = jax.lax.stop_gradient(advantages(config, unroll.steps, decided.value))
    policy = distributions.one_hot(decided.logits[:-1])
    taken = jax.nn.one_hot(unroll.steps.prev_action[1:], decided.logits.shape[-1])

    def mean(x):
        """Of decisions that count."""
        return jnp.sum(jnp.where(counts, x, 0.0)) / jnp.maximum(counts.sum(), 1)

    target = advantage + jax.lax.stop_gradient(decided.value[:-1])
    parts = dict(
        policy_loss=-mean(policy.log_prob(taken) * advantage),
        value_loss=0.5 * mean(jnp.square(decided.value[:-1] - target)),
        entropy=mean(policy.entropy()),
    )
    loss = parts["policy_loss"] + config.value_scale * parts["value_loss"] - config.entropy * parts["entropy"]
    if config.rollout_policy == "distilled":
        # No loss trains what a state at a decision is decoded to, which is not an imagined one.
        seen = unit_pixels(image_of(unroll.steps.obs)) if config.pixels else decided.imagined.start
        parts |= distillation(agent, params, seen, decided, mean)
        loss += config.distillation * parts["distillation_loss"]
    if config.rollout_policy == "learned":
        chosen = decided.imagined.action[:-1, int(config.force_first) :]
        parts["rollout_entropy"] = mean(entropy_of_rollouts(chosen))
        loss += config.rollout_entropy * parts["rollout_entropy"]
    return loss, dict(loss=loss, value_mean=mean(decided.value[:-1]), **parts)


def distillation(agent, params, features, decided, mean):
    """distillation_loss, KL(policy || rollout policy) at the decisions, whose gradient is the rollout policy's alone,
    and rollout_entropy.

    Args: features: float32 [T, B, ...], what the rollout policy sees there; mean: of the decisions that count.
    """
    start = time_first(jax.lax.stop_gradient(features[:-1]))  # rows first, as in `read_out`
    logits = time_first(agent.policy_logits(params, fold(start)).reshape(*start.shape[:2], -1))
    imitation = distributions.one_hot(logits)
    policy = distributions.one_hot(jax.lax.stop_gradient(decided.logits[:-1]))
    divergence = policy.kl_divergence(imitation)
    return dict(distillation_loss=mean(divergence), rollout_entropy=mean(imitation.entropy()))


def entropy_of_rollouts(probability):
    """Mean entropy [T, B] of the probabilities [T, H, B, K, A] that were a rollout's actions."""
    return -jnp.sum(probability * jnp.log(probability + 1e-8), axis=-1).mean(axis=(1, 3))


def advantages(config, steps, value):
    """Returns of n steps less the value: [n, E].

    Nothing crosses from one episode into the next: a death ends a return, a time limit goes on in the value of its last
    image, and the decision on that row has no advantage.

    Args: steps: Step [n + 1, E]; value: [n + 1, E].
    """
    chex.assert_equal_shape((steps.reward, value))
    ends = steps.is_last[:-1]
    reward = jnp.where(ends, value[:-1], config.reward_scale * steps.reward[1:])  # so that its error is 0
    discount = jnp.where(ends, 0.0, config.discount * steps.discount[1:])
    by_row = jax.vmap(lambda *row: generalized_advantage(*row, decay=1.0), in_axes=1, out_axes=1)
    return by_row(reward, value, discount)
