"""Training of the models of rewards alone: squared errors of the rewards that follow an image."""

import jax
import jax.numpy as jnp
import optax

from wmjax import imagine
from wmjax.models.reward_only.model import init_params, make_model
from wmjax.ops.actions import model_action
from wmjax.ops.axes import time_first
from wmjax.ops.gradients import gradient_step
from wmjax.ops.masks import predictable_steps
from wmjax.types import Learner, LearnerState, UsageError


def make(config, env_spec):
    """(WorldModel, Learner) of a RewardOnlyConfig; raises UsageError if the network cannot take the images."""
    optimizer = optax.adam(config.learning_rate, eps=config.adam_epsilon)

    def init(key):
        params = init_params(key, config, env_spec)
        return LearnerState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    jax.eval_shape(init, jax.random.key(0))  # a network that cannot take the images is refused here

    def update(state, key, batch):
        """One gradient step on chunks, Step [B, T]; metrics as of `Learner`."""
        loss, grads = jax.value_and_grad(reward_loss, argnums=2)(config, env_spec, state.params, key, batch)
        params, opt_state, more = gradient_step(optimizer, grads, state.params, state.opt_state)
        return LearnerState(params, opt_state, state.updates + 1), dict(loss=loss, reward_loss=loss) | more

    return make_model(config, env_spec), Learner(init, update)


def reward_loss(config, env_spec, params, key, batch):
    """Mean squared error of the rewards 1.. of chunks, predicted from image 0 and the actions 1..

    Args: batch: Step [B, T]; the rest as in `make`. Of conv, steps beyond the horizon are not used. Steps of another
      episode than the image's have no error.
    Returns: float32 [].
    """
    begin_key, dropout_key = jax.random.split(key)
    model = make_model(config, env_spec, dropout_key if config.dropout else None)
    last = batch.reward.shape[1] if model.horizon is None else 1 + model.horizon
    if not 1 < last <= batch.reward.shape[1]:
        raise UsageError(f"model horizon {config.horizon}: chunks have only {batch.reward.shape[1]} rows")
    first = jax.tree.map(lambda x: x[:, 0], batch.obs)
    state = imagine.begin(model, params, begin_key, first, env_spec.action)
    actions = time_first(model_action(batch.prev_action, env_spec.action)[:, 1:last])
    predicted, _ = imagine.predict_rewards(model, params, begin_key, state, actions)  # [T - 1, B]
    error = jnp.square(time_first(predicted) - batch.reward[:, 1:last])
    return jnp.where(predictable_steps(batch.is_first[:, :last], context=1), error, 0.0).mean()
