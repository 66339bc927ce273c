"""Proximal policy optimisation on imagined rollouts (Schulman et al. 2017; Robine et al. 2023, Equations 7 and 8)."""

import functools

import chex
import jax
import jax.numpy as jnp
from flax import struct

from wmjax import imagine
from wmjax.agents.ppo.actor import make_policy
from wmjax.ops import distributions
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.ops.gradients import clipped_adam, gradient_step
from wmjax.ops.returns import generalized_advantage
from wmjax.types import Array, Learner, LearnerState


@struct.dataclass
class Rollout:
    """What a policy did in imagination: H decisions of B rows.

    Every decision is learnt from, those after an imagined end of the episode too, as decisions of another episode.
    """

    features: Array  # float32 [B, H + 1, ...], before each decision and at the end
    action: Array  # float32 [B, H, M], one-hot
    reward: Array  # float32 [B, H], on arriving after the decision
    discount: Array  # float32 [B, H], predicted probability that the episode goes on there, without gamma


def dream(model, network, params, policy_params, key, start, horizon):
    """The Rollout of a policy in a model's imagination.

    Args: params: of the model; policy_params: of the network; start: model state of B rows; horizon: H.
    """
    states, actions = imagine.closed_loop(model, params, key, start, make_policy(network, policy_params), horizon)
    arrived = jax.tree.map(lambda x: x[1:], states)
    features = unfold_like(model.features(params, fold(states)), states)
    heads = (imagine.rewards(model, params, arrived), imagine.discounts(model, params, arrived))
    return Rollout(*map(time_first, (features, actions, *heads)))


@struct.dataclass
class PPOBatch:
    """A rollout as a set of decisions with what was known when they were taken; N is B * H or a minibatch."""

    features: Array  # float32 [N, ...]
    action: Array  # float32 [N, M]
    log_prob: Array  # float32 [N], under the policy that acted
    value: Array  # float32 [N]
    advantage: Array  # float32 [N]


def make(config, network, feature_shape):
    """A Learner of a PPOConfig whose batch is a Rollout of the policy with the very parameters of its state.

    Args: network: a flax module, features [B, *feature_shape] -> (logits [B, M], value [B]), with M as its `actions`.
    """
    optimizer = clipped_adam(config.clip_norm, config.learning_rate, config.adam_epsilon)

    def init(key):
        params = network.init(key, jnp.zeros((1, *feature_shape)))
        return LearnerState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(state, key, rollout):
        """One round: all epochs on one Rollout; metrics as of `Learner`."""
        decisions = compute_advantages(network, config, state.params, rollout)

        def step(carry, index):
            params, opt_state = carry
            batch = jax.tree.map(lambda x: jnp.asarray(x)[index], decisions)
            grads, metrics = jax.grad(ppo_loss, argnums=2, has_aux=True)(network, config, params, batch)
            params, opt_state, more = gradient_step(optimizer, grads, params, opt_state)
            return (params, opt_state), metrics | more

        def epoch(carry, indices):
            whole, rest = indices
            carry, seen = jax.lax.scan(step, carry, whole)
            if rest.size:
                carry, last = step(carry, rest)
                seen = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), seen, last)
            return carry, seen

        indices = minibatches(key, decisions.value.size, config.epochs, config.minibatch)
        (params, opt_state), metrics = jax.lax.scan(epoch, (state.params, state.opt_state), indices)
        finite = jax.tree.map(jnp.all, metrics.pop("grad_finite"))
        metrics = jax.tree.map(jnp.mean, metrics)  # [epochs, minibatches] -> []
        metrics["return_mean"] = rollout.reward.sum(axis=1).mean()
        metrics["value_mean"] = decisions.value.mean()
        metrics["grad_finite"] = finite
        return LearnerState(params, opt_state, state.updates + 1), metrics

    return Learner(init, update)


def compute_advantages(network, config, params, rollout):
    """The PPOBatch of a Rollout, N = B * H, with values and advantages by these parameters.

    The episode ends with the rollout (Equation 17), unless config.bootstrap makes its end a cut, after which the value
    of the last features stands for what would follow.
    """
    rows, horizon = rollout.reward.shape
    chex.assert_shape(rollout.features, (rows, horizon + 1, ...))
    chex.assert_shape(rollout.action, (rows, horizon, None))
    chex.assert_shape(rollout.discount, (rows, horizon))
    logits, value = network.apply(params, fold(rollout.features))
    logits = logits.reshape(rows, horizon + 1, -1)[:, :-1]
    value = value.reshape(rows, horizon + 1)
    discount = config.discount * rollout.discount.at[:, -1].multiply(config.bootstrap)
    estimate = functools.partial(generalized_advantage, decay=config.gae_lambda)
    advantage = jax.vmap(estimate)(rollout.reward, value, discount)  # over B
    log_prob = distributions.one_hot(logits).log_prob(rollout.action)
    return fold(PPOBatch(rollout.features[:, :-1], rollout.action, log_prob, value[:, :-1], advantage))


def minibatches(key, size, epochs, minibatch):
    """Shuffled passes over `size` decisions, cut into minibatches: each pass ends with a smaller one if need be.

    Returns: indices (int32 [epochs, size // minibatch, minibatch], int32 [epochs, size % minibatch]).
    """
    order = jax.vmap(lambda key: jax.random.permutation(key, size))(jax.random.split(key, epochs))  # [epochs, size]
    whole, rest = jnp.split(order, [size - size % minibatch], axis=1)
    return whole.reshape(epochs, -1, minibatch), rest


def ppo_loss(network, config, params, batch):
    """The clipped objective, the value's error and the entropy bonus of a minibatch, as one loss.

    Args: batch: PPOBatch [N].
    Returns: (loss, metrics): metrics hold the unscaled parts.
    """
    logits, value = network.apply(params, batch.features)
    policy = distributions.one_hot(logits)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    centred = batch.advantage - jnp.mean(batch.advantage)
    advantage = centred / (jnp.sqrt(jnp.mean(jnp.square(centred))) + 1e-8)  # so in each minibatch: authors' code
    clipped_ratio = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    policy_loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped_ratio * advantage))

    target = batch.advantage + batch.value
    near_value = batch.value + jnp.clip(value - batch.value, -config.clip, config.clip)
    value_loss = 0.5 * jnp.mean(jnp.maximum(jnp.square(value - target), jnp.square(near_value - target)))
    entropy = jnp.mean(policy.entropy())
    metrics = dict(
        policy_loss=policy_loss,
        value_loss=value_loss,
        entropy=entropy,
        kl=jnp.mean(ratio - 1 - log_ratio),  # its mean over actions is the divergence, and it is never below 0
        clip_fraction=jnp.mean((jnp.abs(ratio - 1) > config.clip).astype(jnp.float32)),
    )
    return policy_loss + config.value_scale * value_loss - config.entropy * entropy, metrics
