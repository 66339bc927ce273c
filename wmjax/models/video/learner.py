"""Training of the image-predicting models: squared errors of images and rewards, with scheduled sampling.

The first images of a chunk are shown. Each one after them is shown with a probability that falls from 1 to 0 in
`sampling_updates` updates, or else the model goes on from its own: one draw a time step, for the whole batch.
"""

import jax
import jax.numpy as jnp

from wmjax import imagine
from wmjax.models.video.model import check_image, init_params, make_model, rewards_of_images, with_hidden_images
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.ops.gradients import clipped_adam, gradient_step
from wmjax.ops.masks import predictable_steps
from wmjax.types import Learner, LearnerState, UsageError


def make(config, env_spec):
    """(WorldModel, Learner) of a VideoConfig; raises UsageError if the network cannot take the images of env_spec."""
    check_image(env_spec.obs_shape)
    model = make_model(config, env_spec)
    optimizer = clipped_adam(config.clip_norm, config.learning_rate, config.adam_epsilon)

    def init(key):
        params = init_params(key, config, env_spec)
        return LearnerState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(state, key, batch):
        """One gradient step on chunks, Step [B, T]; metrics as of `Learner`."""
        shown = probability_shown(config, state.updates)
        gradient = jax.grad(model_loss, argnums=3, has_aux=True)
        grads, metrics = gradient(model, config, env_spec.action, state.params, key, batch, shown)
        params, opt_state, more = gradient_step(optimizer, grads, state.params, state.opt_state)
        return LearnerState(params, opt_state, state.updates + 1), metrics | more

    return model, Learner(init, update)


def probability_shown(config, updates):
    """Of an image after the context."""
    return jnp.maximum(0.0, 1.0 - updates / config.sampling_updates)


def model_loss(model, config, action_spec, params, key, batch, shown):
    """Mean squared errors of images, of pixels in [0, 1], and of rewards.

    Steps into another episode, and those imagined after one, count for nothing.

    Args: batch: Step [B, T]; shown: probability that an image after the context is shown; the rest as in `make`.
    Returns: (loss, metrics): loss, image_loss, reward_loss.
    """
    images, rewards = predict(model, config, action_spec, params, key, batch, shown)
    truth = unfold_like(model.encode(params, fold(batch.obs)), batch)[:, 1:]
    counts = predictable_steps(batch.is_first, config.context)
    predicted = rewards.shape[1]  # of the ot_or the newest alone
    image_loss = mean(jnp.square(images - truth).mean((2, 3, 4)), counts)
    reward_loss = mean(jnp.square(rewards - batch.reward[:, -predicted:]), counts[:, -predicted:])
    loss = image_loss + config.reward_scale * reward_loss
    return loss, dict(loss=loss, image_loss=image_loss, reward_loss=reward_loss)


def predict(model, config, action_spec, params, key, batch, shown):
    """(images [B, T - 1, X, Y, C], rewards) predicted for times 1 .. T - 1 of chunks; args as of `model_loss`.

    Rewards are [B, T - 1], of the ot_or those of its horizon, [B, H]. A chunk begins as an episode does.
    Raises: UsageError, where it is traced: a chunk of another length than the context and the horizon.
    """
    rows, time = batch.reward.shape
    needed = config.context + (config.horizon if config.kind == "ot_or" else 1)
    least = "" if config.kind == "ot_or" else " or more"
    if time < needed or (config.kind == "ot_or" and time > needed):
        raise UsageError(
            f"chunks of {time} rows: an {config.kind} with these context and horizon needs {needed}{least}"
        )
    draw_key, model_key = jax.random.split(key)
    is_shown = (jax.random.uniform(draw_key, (time,)) < shown) | (jnp.arange(time) < config.context)
    truth = unfold_like(model.encode(params, fold(batch.obs)), batch)
    _, states, images = imagine.filter(
        with_hidden_images(model),
        params,
        model_key,
        model.initial(params, rows),
        prev_action=model_action(batch.prev_action, action_spec),
        embed=(truth, jnp.broadcast_to(is_shown[None], (rows, time))),
        is_first=jnp.asarray(batch.is_first).at[:, 0].set(True),
    )
    images = images[:, 1:]
    if config.kind == "ot_lr":
        return images, states.reward[:, 1:]
    last = config.context - 1
    sequence = jnp.concatenate([states.image[:, last, None], images[:, last:]], axis=1)  # [B, 1 + H, X, Y, C]
    return images, rewards_of_images(config, params, time_first(sequence)).T


def mean(x, counts):
    """The mean of x over the steps that count, bool of the same shape; 0 where none does."""
    return jnp.where(counts, x, 0.0).sum() / jnp.maximum(counts.sum(), 1)
