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
from wmjax.models.vq_convlstm.model import init_params, make_model, make_modules, pixels
from wmjax.nets.grid_dynamics import scale_gradient
from wmjax.ops import continuous_bernoulli
from wmjax.ops import vector_quantisation as vq
from wmjax.ops.actions import model_action
from wmjax.types import Learner, LearnerState

AUTOENCODER = ("encoder", "decoder")  # names of parameters


class Updates(NamedTuple):
    """The two updates that the paper alternates; both (state, key, batch, ...) -> (state, metrics)."""

    autoencoder: Callable[..., tuple[LearnerState, dict]]  # batch: images uint8 [N, X, Y, C]; rate: times learning_rate
    dynamics: Callable[..., tuple[LearnerState, dict]]  # batch: Step [B, T], T >= 2; counts in state.updates


def make(config, env_spec):
    """(WorldModel, Learner). Its update trains the autoencoder on all images of the chunks, then the dynamics."""
    updates = make_updates(config, env_spec)

    def update(state, key, batch):
        autoencoder_key, dynamics_key = jax.random.split(key)
        state, metrics = updates.autoencoder(state, autoencoder_key, imagine.fold(batch.obs))
        state, more = updates.dynamics(state, dynamics_key, batch)
        finite = jnp.concatenate([metrics.pop("grad_finite"), more.pop("grad_finite")])
        return state, metrics | more | dict(grad_finite=finite)

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
        parts = dict(autoencoder={name: params[name] for name in AUTOENCODER})
        parts |= dict(dynamics=params["dynamics"], reward=params["reward"])
        opt_state = {name: optimizer.init(parts[name]) for name, optimizer in optimizers.items()}
        return LearnerState(params, opt_state, jnp.zeros((), jnp.int32))

    return init


def make_updates(config, env_spec):
    """The Updates of a VQConvLSTMConfig."""
    modules = make_modules(config, env_spec.obs_shape)
    model = make_model(config, env_spec)
    optimizers = make_optimizers(config)

    def autoencoder(state, key, images, rate=1.0):
        def loss(trained):
            return autoencoder_loss(config, modules, trained, state.params["codebook"].vectors, images)

        trained = {name: state.params[name] for name in AUTOENCODER}
        grads, (metrics, outputs, codes, statistics) = jax.grad(loss, has_aux=True)(trained)
        steps, opt_state = optimizers["autoencoder"].update(grads, state.opt_state["autoencoder"])
        trained = optax.apply_updates(trained, jax.tree.map(lambda x: rate * x, steps))
        codebook = vq.update(
            state.params["codebook"],
            outputs.reshape(-1, outputs.shape[-1]),
            codes.reshape(-1),
            decay=config.codebook_decay,
            epsilon=config.codebook_epsilon,
        )
        keep = config.norm_decay
        running = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.params["running"], statistics)
        params = state.params | trained | dict(codebook=codebook, running=running)
        state = state.replace(params=params, opt_state=state.opt_state | dict(autoencoder=opt_state))
        return state, metrics | dict(perplexity=vq.perplexity(codes, config.codes), grad_finite=finite(grads))

    def dynamics(state, key, batch):
        trained = dict(dynamics=state.params["dynamics"], reward=state.params["reward"])

        def loss(trained):
            return dynamics_loss(config, modules, model, state.params | trained, key, batch, env_spec.action)

        grads, metrics = jax.grad(loss, has_aux=True)(trained)
        opt_state = dict(state.opt_state)
        for name in trained:
            steps, opt_state[name] = optimizers[name].update(grads[name], opt_state[name])
            trained[name] = optax.apply_updates(trained[name], steps)
        state = state.replace(params=state.params | trained, opt_state=opt_state, updates=state.updates + 1)
        return state, metrics | dict(grad_finite=finite(grads))

    return Updates(autoencoder, dynamics)


def finite(grads):
    """bool [leaves]."""
    return jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)])


def autoencoder_loss(config, modules, params, vectors, images):
    """Negative ELBO in nats an image, plus commitment.

    The KL of codes that are certain from a uniform prior over them is constant: positions * log(codes).
    Args: params: of encoder and decoder; vectors: the codebook's; images: uint8 [N, H, W, C].
    Returns: (loss, (metrics, encoder outputs [N, X, Y, D], their codes [N, X, Y], batch statistics)).
    """
    target = pixels(images)
    outputs, statistics = modules["encoder"].apply(params["encoder"], target)
    codes = vq.nearest(vectors, outputs)
    quantised = vectors[codes]
    logits = modules["decoder"].apply(params["decoder"], vq.straight_through(outputs, quantised))
    log_likelihood = continuous_bernoulli.log_prob(target, logits, 3).mean()
    commitment = jnp.square(outputs - quantised).mean()
    constant = codes[0].size * jnp.log(config.codes)
    metrics = dict(elbo=log_likelihood - constant, commitment=commitment)
    loss = -log_likelihood + config.commitment * commitment
    return loss, (metrics, outputs, codes, statistics)


def dynamics_loss(config, modules, model, params, key, batch, action_spec):
    """Negative log likelihood of the next codes, summed over the grid, and of the rewards, the mean over steps.

    The first `context` inputs are real latents, the others are drawn from the model's own predictions. Steps into
    another episode, and those imagined after one, count for nothing.
    Returns: (loss, metrics): latent_loss, reward_loss; latent_accuracy, the share of drawn codes that are right; and
      of each class of reward how many steps there were (there_<class>) and were foretold (right_<class>).
    """
    filter_key, imagine_key, draw_key = jax.random.split(key, 3)
    context = min(config.context, batch.reward.shape[1] - 1)
    embed = jax.lax.stop_gradient(model.encode(params, imagine.fold(batch.obs)))
    vectors = params["codebook"].vectors
    codes = imagine.unfold_like(vq.nearest(vectors, embed), batch)  # [B, T, X, Y]
    action = model_action(batch.prev_action, action_spec)
    start = model.initial(params, batch.reward.shape[0]).replace(latent=vectors[codes[:, 0]])
    known = slice(1, context)
    last, seen, _ = imagine.filter(
        model,
        params,
        filter_key,
        start,
        prev_action=action[:, known],
        embed=imagine.unfold_like(embed, batch)[:, known],
        is_first=batch.is_first[:, known],
    )
    imagined = imagine.open_loop(model, params, imagine_key, last, imagine.time_first(action[:, context:]))
    imagined = jax.tree.map(imagine.time_first, imagined)
    states = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), seen, imagined)  # arrivals 1 .. T - 1

    elsewhere = jnp.cumsum(batch.is_first[:, context:], axis=1) > 0
    counts = 1.0 - jnp.concatenate([batch.is_first[:, known], elsewhere], axis=1)
    total = jnp.maximum(counts.sum(), 1.0)
    truth = codes[:, 1:]
    latent_loss = (counts * nats(states.prior, truth).sum((2, 3))).sum() / total
    drawn = jax.random.categorical(draw_key, states.prior)
    accuracy = (counts * (drawn == truth).mean((2, 3))).sum() / total

    hidden = scale_gradient(states.cells[-1][0], config.reward_scale)
    logits = modules["reward"].apply(params["reward"], imagine.fold(hidden), imagine.fold(states.action))
    logits, reward = imagine.unfold_like(logits, counts), reward_class(batch.reward[:, 1:])
    reward_loss = (counts * nats(logits, reward)).sum() / total
    metrics = dict(latent_loss=latent_loss, latent_accuracy=accuracy, reward_loss=reward_loss)
    return latent_loss + reward_loss, metrics | class_counts(logits.argmax(-1), reward, counts)


def nats(logits, index):
    """-log p of `index`, int32 [...], under `logits` [..., K]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), index[..., None], axis=-1)[..., 0]


def reward_class(reward):
    """Rewards clipped to [-1, 1] and rounded, as indices of -1, 0, 1: int32."""
    return jnp.round(jnp.clip(reward, -1.0, 1.0)).astype(jnp.int32) + 1


def class_counts(guess, truth, counts):
    """How many of each class of reward were foretold rightly, and how many there were."""
    metrics: dict[str, Any] = {}
    for index, name in enumerate(("minus", "zero", "plus")):
        there = counts * (truth == index)
        metrics |= {f"right_{name}": (there * (guess == index)).sum(), f"there_{name}": there.sum()}
    return metrics
