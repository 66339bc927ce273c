"""Training of PlaNet's models: the variational bound (Equation 3) and latent overshooting (Equation 7)."""

import jax
import jax.numpy as jnp

from wmjax import imagine
from wmjax.models.rssm import image_rewards, vector
from wmjax.models.rssm.config import RSSMConfig
from wmjax.models.rssm.model import init_params, make_model
from wmjax.nets.images import decoder_kernels
from wmjax.ops import gaussian, image_bits
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, unfold_like
from wmjax.ops.centre import crop, shrink
from wmjax.ops.gradients import clipped_adam, gradient_step, scale_gradient
from wmjax.types import Learner, LearnerState, UsageError, image_of, vector_of


def make(config, env_spec):
    """(WorldModel, Learner) of an RSSMConfig; raises UsageError if the network cannot take the images of env_spec."""
    if config.predicts_images:
        decoder_kernels(env_spec.obs_shape)
        check_side(config, env_spec.obs_shape)
    model = make_model(config, env_spec)
    optimizer = make_optimizer(config)

    def init(key):
        params = init_params(key, config, env_spec)
        return LearnerState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    jax.eval_shape(init, jax.random.key(0))  # a network that cannot take the images is refused here

    def update(state, key, batch):
        """One gradient step on chunks, Step [B, T]; metrics as of `Learner`."""
        gradient = jax.grad(model_loss, argnums=3, has_aux=True)
        grads, metrics = gradient(model, config, env_spec.action, state.params, key, batch)
        params, opt_state, more = gradient_step(optimizer, grads, state.params, state.opt_state)
        return LearnerState(params, opt_state, state.updates + 1), metrics | more

    return model, Learner(init, update)


def check_side(config, image_shape):
    """Raises UsageError where the part of images that is predicted is larger than they are."""
    if config.image_side > image_shape[0] and config.image_side != RSSMConfig.image_side:
        raise UsageError(f"model image_side {config.image_side}: choose 0 to {image_shape[0]}, the images' size")


def make_optimizer(config):
    """Adam on gradients of clipped global norm."""
    return clipped_adam(config.clip_norm, config.learning_rate, config.adam_epsilon)


def model_loss(model, config, action_spec, params, key, batch):
    """Negative bound in nats for each time step, the mean over the batch.

    Args: batch: Step [B, T]; the rest as in `make`.
    Returns: (loss, metrics): metrics hold the unscaled parts: loss, image_loss (where images are predicted),
      vector_loss (where there are vectors), reward_loss, kl (before free nats; not of the rnn), overshooting_kl (where
      it is on).
    """
    noise_key, filter_key, overshoot_key = jax.random.split(key, 3)
    _, states, prior = imagine.filter_steps(model, params, filter_key, batch, action_spec)
    images, metrics, loss = None, {}, 0.0
    if model.decode:
        images = model.decode(params, fold(states))
        target = image_bits.dequantise(noise_key, fold(image_of(batch.obs)), config.image_bits)
        metrics["image_loss"] = image_loss(config, target, images)
        loss += config.image_scale * metrics["image_loss"]
    numbers = vector_of(batch.obs)
    if numbers is not None:
        metrics["vector_loss"] = vector.vector_loss(config, params, model.features(params, fold(states)), numbers)
        loss += config.vector_scale * metrics["vector_loss"]
    metrics["reward_loss"] = reward_loss(model, config, params, states, images, batch.reward)
    loss += config.reward_scale * metrics["reward_loss"]
    if config.kind != "rnn":  # which has no noise and, in the authors' code, no divergence: nothing trains its prior
        kl = gaussian.kl_diagonal(states.mean, states.std, *scale_gradient(prior, config.prior_scale))
        metrics["kl"] = kl.mean()
        loss += config.kl_scale * gaussian.free_nats(kl, config.free_nats).mean()
    if config.overshooting_distance > 1:
        metrics["overshooting_kl"] = overshooting = overshooting_loss(
            model, config, params, overshoot_key, states, model_action(batch.prev_action, action_spec), batch.is_first
        )
        loss += config.overshooting_scale * overshooting
    return loss, dict(loss=loss, **metrics)


def image_loss(config, target, mean):
    """Half the squared error of images [N, X, Y, C], summed over those pixels that are predicted, the mean over N."""
    side = config.image_side
    if side < target.shape[1]:
        target, mean = dict(crop=crop, resize=shrink)[config.image_fit](target, side), crop(mean, side)
    return -gaussian.unit_log_prob(target, mean, 3).mean()


def reward_loss(model, config, params, states, images, reward):
    """Half the squared error, the mean over the batch.

    Args: states [B, T]; images: decoded from them [B * T, X, Y, C], or None; reward [B, T].
    """
    if config.reward_gradient == "stopped":
        states, images = jax.lax.stop_gradient((states, images))
    if config.reward_from == "images":
        return image_rewards.reward_loss(config, params, unfold_like(images, reward), reward)
    return -gaussian.unit_log_prob(reward.reshape(-1), model.reward(params, fold(states)), 0).mean()


def overshooting_loss(model, config, params, key, states, prev_action, is_first):
    """Mean over distances 2..D of the KL from the posteriors, without their gradients, to the multi-step priors.

    Distances that would start before the chunk or the episode are left out; the free nats are those of distance 1.
    """
    priors, valid = imagine.overshoot(
        model, params, key, states, prev_action=prev_action, is_first=is_first, distance=config.overshooting_distance
    )
    mean, std = (
        jnp.broadcast_to(jax.lax.stop_gradient(x)[None], prior.shape)
        for x, prior in ((states.mean, priors.mean), (states.std, priors.std))
    )
    kl = gaussian.free_nats(gaussian.kl_diagonal(mean, std, priors.mean, priors.std), config.free_nats)
    by_distance = jnp.where(valid, kl, 0.0).mean(axis=(1, 2))  # [D - 1], normalised by B * T as distance 1 is
    return by_distance.mean()
