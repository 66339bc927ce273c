"""Training of the VQ-VAE and of the dynamics, one update at a time (Robine et al. 2023, section 3.3.2).

Three optimisers: autoencoder, dynamics, reward head. The encoder is not trained through the dynamics, and the reward's
gradient enters the dynamics scaled by `reward_scale`: the paper weighs the loss instead and raises the head's learning
rate, which Adam undoes but for its epsilon.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from wmjax import imagine
from wmjax.models.vq_convlstm.config import grid_of
from wmjax.models.vq_convlstm.model import init_params, make_model, make_modules, pixel_likelihood
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.ops.frames import unit_pixels
from wmjax.ops.gradients import finite, scale_gradient
from wmjax.ops.masks import predictable_steps
from wmjax.types import Learner, LearnerState, image_of

PARTS = dict(autoencoder=("encoder", "decoder"), dynamics=("dynamics", "latent_head"), reward=("reward",))


class Updates(NamedTuple):
    """The two updates that the paper alternates; both (state, key, batch, ...) -> (state, metrics)."""

    autoencoder: Callable[..., tuple[LearnerState, dict]]  # batch: images uint8 [N, X, Y, C]; rate: times learning_rate
    dynamics: Callable[..., tuple[LearnerState, dict]]  # batch: Step [B, T], T >= 2; counts in state.updates


def make(config, env_spec):
    """(WorldModel, Learner). Its update trains the autoencoder on all images of the chunks, then the dynamics."""
    updates = make_updates(config, env_spec)

    def update(state, key, batch):
        autoencoder_key, dynamics_key = jax.random.split(key)
        state, metrics = updates.autoencoder(state, autoencoder_key, fold(image_of(batch.obs)))
        state, more = updates.dynamics(state, dynamics_key, batch)
        return state, metrics | more | dict(grad_finite=metrics["grad_finite"] | more["grad_finite"])

    return make_model(config, env_spec), Learner(make_init(config, env_spec), update)


def make_optimizers(config):
    """One Adam for each part of the parameters that a gradient reaches."""
    return dict(
        autoencoder=optax.adam(config.learning_rate),
        dynamics=optax.adam(config.dynamics_learning_rate),
        reward=optax.adam(config.reward_learning_rate),
    )


def make_init(config, env_spec):
    """(key) -> LearnerState; raises UsageError here if the network cannot take the images of env_spec."""
    grid_of(config, env_spec.obs_shape)
    optimizers = make_optimizers(config)

    def init(key):
        params = init_params(key, config, env_spec)
        opt_state = {name: optimizer.init(pick(params, PARTS[name])) for name, optimizer in optimizers.items()}
        return LearnerState(params, opt_state, jnp.zeros((), jnp.int32))

    return init


def make_updates(config, env_spec):
    """The Updates of a VQConvLSTMConfig."""
    modules, latents = make_modules(config, env_spec.obs_shape)
    model = make_model(config, env_spec)
    optimizers = make_optimizers(config)

    def step(name, state, grads, rate=1.0):
        """(params of one optimiser after its step, the optimiser's state)."""
        grads, params = pick(grads, PARTS[name]), pick(state.params, PARTS[name])
        steps, opt_state = optimizers[name].update(grads, state.opt_state[name])
        return optax.apply_updates(params, jax.tree.map(lambda x: rate * x, steps)), {name: opt_state}

    log_prob = pixel_likelihood(config).log_prob

    def autoencoder(state, key, images, rate=1.0):
        loss_key, restart_key = jax.random.split(key)

        def loss(trained):
            return autoencoder_loss((modules, latents, log_prob), state.params | trained, loss_key, images)

        trained = pick(state.params, PARTS["autoencoder"])
        grads, (metrics, embedding, statistics) = jax.grad(loss, has_aux=True)(trained)
        changed, more = latents.ema_update(state.params, restart_key, embedding)
        trained, opt_state = step("autoencoder", state, grads, rate)
        keep = config.norm_decay
        running = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.params["running"], statistics)
        params = state.params | trained | changed | dict(running=running)
        state = state.replace(params=params, opt_state=state.opt_state | opt_state)
        return state, metrics | more | dict(grad_finite=finite(grads))

    def dynamics(state, key, batch):
        def loss(trained):
            return dynamics_loss(config, (modules, latents), model, state.params | trained, key, batch, env_spec.action)

        trained = pick(state.params, (*PARTS["dynamics"], *PARTS["reward"]))
        grads, metrics = jax.grad(loss, has_aux=True)(trained)
        params, opt_state = state.params, state.opt_state
        for name in ("dynamics", "reward"):
            trained, moved = step(name, state, grads)
            params, opt_state = params | trained, opt_state | moved
        state = state.replace(params=params, opt_state=opt_state, updates=state.updates + 1)
        return state, metrics | dict(grad_finite=finite(grads))

    return Updates(autoencoder, dynamics)


def pick(tree, names):
    """Some of the entries of a dict."""
    return {name: tree[name] for name in names}


def autoencoder_loss(nets, params, key, images):
    """Negative ELBO in nats an image, plus commitment.

    Discrete codes have a deterministic posterior and a uniform prior: their KL is the constant positions * log(codes).

    Args: nets: (modules, latents, log likelihood of pixels); params: of encoder, decoder and codebook;
      images: uint8 [N, H, W, C].
    Returns: (loss, (metrics, embedding [N, X, Y, E], batch statistics)).
    """
    modules, latents, log_prob = nets
    target = unit_pixels(images)
    outputs, statistics = modules["encoder"].apply(params["encoder"], target)
    embedding = latents.embed(outputs)
    latent, kl, extra, metrics = latents.autoencode(params, key, embedding)
    logits = modules["decoder"].apply(params["decoder"], latents.grid(latent))
    elbo = (log_prob(target, logits, 3) - kl).mean()
    return extra - elbo, (metrics | dict(elbo=elbo), embedding, statistics)


def dynamics_loss(config, nets, model, params, key, batch, action_spec):
    """Negative log likelihood of the next latents, summed over the grid, and of the rewards, the mean over steps.

    The first `context` inputs are real latents, the others are drawn from the model's own predictions. Steps into
    another episode, and those imagined after one, count for nothing.

    Args: nets: (modules, latents) of `make_modules`.
    Returns: (loss, metrics): latent_loss, reward_loss; latent_accuracy, the share of sampled codes that are right;
      of each class of reward how many steps have it (reward_count_<class>) and how many of those are predicted
      (reward_correct_<class>).
    """
    modules, latents = nets
    start_key, filter_key, imagine_key, draw_key = jax.random.split(key, 4)
    context = min(config.context, batch.reward.shape[1] - 1)
    embed = jax.lax.stop_gradient(model.encode(params, fold(batch.obs)))
    truth = unfold_like(embed, batch)  # [B, T, X, Y, E]
    latent = latents.posterior_sample(params, start_key, embed)
    latent = unfold_like(latent, batch)  # [B, T, X, Y, D]
    action = model_action(batch.prev_action, action_spec)
    steps = (latent, action, truth, batch.is_first)
    states = predicted_states(model, params, (filter_key, imagine_key), steps, context)

    counts = predictable_steps(batch.is_first, context).astype(jnp.float32)
    total = jnp.maximum(counts.sum(), 1.0)
    hidden, action = states.cells[-1][0], states.action
    inputs = jax.tree.map(fold, (hidden, action, jax.lax.stop_gradient(latent[:, 1:])))
    prior = unfold_like(modules["latent_head"].apply(params["latent_head"], *inputs), counts)
    truth = truth[:, 1:]
    latent_loss = (counts * latents.divergence(params, prior, truth)).sum() / total
    metrics = latents.prediction_metrics(params, draw_key, prior, truth)
    metrics = {name: (counts * x).sum() / total for name, x in metrics.items()}

    hidden = fold(scale_gradient(hidden, config.reward_scale))
    logits = modules["reward"].apply(params["reward"], hidden, fold(action))
    logits, reward = unfold_like(logits, counts), reward_class(batch.reward[:, 1:])
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), reward[..., None], axis=-1)[..., 0]
    reward_loss = -(counts * log_probs).sum() / total
    metrics |= class_counts(logits.argmax(-1), reward, counts)
    return latent_loss + reward_loss, dict(latent_loss=latent_loss, reward_loss=reward_loss) | metrics


def predicted_states(model, params, keys, steps, context):
    """States of arrivals 1 .. T - 1, [B, T - 1]: filtered before `context`, an open loop from there on.

    Args: keys: of the filter and of the open loop; steps: (latent [B, T, X, Y, D], of which the first is used, action
      [B, T, A], embedding [B, T, ...], is_first [B, T]); context: from 1 to T - 1.
    """
    filter_key, imagine_key = keys
    latent, action, embed, is_first = steps
    known = slice(1, context)
    last, filtered, _ = imagine.filter(
        model,
        params,
        filter_key,
        model.initial(params, latent.shape[0]).replace(latent=latent[:, 0]),
        prev_action=action[:, known],
        embed=embed[:, known],
        is_first=is_first[:, known],
    )
    imagined = imagine.open_loop(model, params, imagine_key, last, time_first(action[:, context:]))
    imagined = jax.tree.map(time_first, imagined)
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), filtered, imagined)


def reward_class(reward):
    """Rewards clipped to [-1, 1] and rounded, as indices of -1, 0, 1: int32."""
    return jnp.round(jnp.clip(reward, -1.0, 1.0)).astype(jnp.int32) + 1


def class_counts(guess, truth, counts):
    """How many steps have each class of reward, and how many of those are predicted."""
    metrics: dict[str, Any] = {}
    for index, name in enumerate(("minus", "zero", "plus")):
        count = counts * (truth == index)
        metrics |= {f"reward_correct_{name}": (count * (guess == index)).sum(), f"reward_count_{name}": count.sum()}
    return metrics
