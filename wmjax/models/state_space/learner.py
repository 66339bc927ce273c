"""Training and scores of the environment models (Buesing et al. 2018, sections 2.3 and 4.1), in nats."""

import jax
import jax.numpy as jnp
from flax import struct

from wmjax import imagine
from wmjax.models.state_space import annealing
from wmjax.models.state_space.annealing import Annealing
from wmjax.models.state_space.config import CONTEXT, STOCHASTIC
from wmjax.models.state_space.model import init_params, make_model
from wmjax.ops import bernoulli, bounds, gaussian, jumps, reward_bits
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, unfold_like
from wmjax.ops.frames import unit_pixels
from wmjax.ops.gradients import clipped_adam, gradient_step
from wmjax.types import Learner, LearnerState, image_of


@struct.dataclass
class AnnealedState(LearnerState):
    """LearnerState of an environment model."""

    annealing: Annealing | None = None  # None: the KL weighs 1 from the start


def make(config, env_spec):
    """(WorldModel, Learner) of a StateSpaceConfig."""
    model, parts = make_model(config, env_spec)
    optimizer = clipped_adam(config.clip_norm, config.learning_rate)
    annealed = config.kind in STOCHASTIC and config.kl_anneal_target > 0

    def init(key):
        params = init_params(key, config, env_spec)
        progress = annealing.initial(env_spec.obs_shape) if annealed else None
        return AnnealedState(params, optimizer.init(params), jnp.zeros((), jnp.int32), annealing=progress)

    def model_loss(params, key, batch, kl_weight):
        """image + reward + kl_weight * kl: minus the bound, once the weight is 1."""
        if config.pad_context:
            key, pad_key = jax.random.split(key)
            batch = batch.replace(obs=with_padded_context(pad_key, config, image_of(batch.obs)))
        terms = score(model, parts, config, env_spec.action, params, key, batch)[0]
        metrics = {name: x.mean() for name, x in terms.items()}
        loss = metrics["image"] + metrics["reward"] + kl_weight * metrics.get("kl", 0.0)
        return loss, dict(loss=loss, **metrics)

    def update(state, key, batch):
        """One gradient step on chunks inside episodes, Step [B, rows]; see `rows_of`."""
        progress = state.annealing
        weight = progress.kl_weight if annealed else 1.0
        grads, metrics = jax.grad(model_loss, has_aux=True)(state.params, key, batch, weight)
        params, opt_state, more = gradient_step(optimizer, grads, state.params, state.opt_state)
        if annealed:
            images = unit_pixels(fold(image_of(batch.obs)))
            progress = annealing.update(progress, state.updates, images, metrics["image"], config.kl_anneal_target)
            metrics |= dict(kl_weight=weight, relative_image=progress.relative)
        return AnnealedState(params, opt_state, state.updates + 1, annealing=progress), metrics | more

    return model, Learner(init, update)


def with_padded_context(key, config, obs):
    """Chunks some of which begin as an episode does: its first image stands in place of those before it.

    Args: obs [B, rows, ...], images. With probability `pad_context` an episode is taken to begin after the first row
      and up to the last of the context, at each row equally likely.
    """
    last = rows_of(config, 0) - 1
    whether_key, when_key = jax.random.split(key)
    padded = jax.random.bernoulli(whether_key, config.pad_context, obs.shape[:1])
    begun = jnp.where(padded, jax.random.randint(when_key, obs.shape[:1], 1, last + 1), 0)
    shown = jnp.maximum(jnp.arange(last + 1)[None], begun[:, None])  # [B, last + 1]
    context = jnp.take_along_axis(obs, shown[..., None, None, None], axis=1)
    return jnp.concatenate([context, obs[:, last + 1 :]], axis=1)


def rows_of(config, predicted):
    """Rows of a chunk with the context and `predicted` steps of the model after it."""
    return jumps.rows(CONTEXT + predicted, config.jump)


def score(model, parts, config, action_spec, params, key, batch):
    """The parts of minus the bound of every step after the context, and what they come from.

    Args: model, parts: from `make_model`; batch: Step [B, rows], chunks inside episodes.
    Returns: (terms, states, beliefs): terms: dict of [B, T] in nats: image (KL of pseudo-probabilities, summed over the
      pixels and channels), reward, and kl where latents are drawn; states and beliefs [B, T, ...].
    """
    batch_size = batch.reward.shape[0]
    action = model_action(batch.prev_action, action_spec)
    obs, action, reward = jumps.subsample(image_of(batch.obs), action, batch.reward, config.jump)
    embed = model.encode(params, fold(obs))
    embed = embed.reshape(batch_size, -1, *embed.shape[1:])
    known, ahead = slice(CONTEXT), slice(CONTEXT, None)
    _, states, beliefs = imagine.filter(
        model._replace(observe=parts.follow),
        params,
        key,
        parts.start(params, embed[:, known], action[:, known]),
        prev_action=action[:, ahead],
        embed=embed[:, ahead],
        is_first=jnp.zeros(reward[:, ahead].shape, bool),
    )
    flat = fold(states)
    image = bernoulli.kl(unit_pixels(fold(obs[:, ahead])), model.decode(params, flat), 3)
    bits = -reward_bits.log_prob(reward[:, ahead].reshape(-1), parts.reward_logits(params, flat))
    terms = {name: unfold_like(x, states) for name, x in dict(image=image, reward=bits).items()}
    if "posterior" in params:
        prior, posterior = latents(beliefs)
        terms["kl"] = gaussian.kl_diagonal(*posterior, *prior)
    return terms, states, beliefs


def latents(beliefs):
    """((mean, std) of the prior, of the posterior), feature maps flattened: [B, T, Z] each."""
    flat = jax.tree.map(lambda x: x.reshape(*x.shape[:2], -1), beliefs)
    return (flat.prior_mean, flat.prior_std), (flat.mean, flat.std)


def make_score(config, env_spec):
    """Scores of chunks by a trained model: (params, key, batch, draws) -> dict of [B], nats a sequence.

    bound: the evidence lower bound, its mean over draws; tighter: the importance-weighted one of `draws` draws. The two
    are equal where nothing is drawn.
    """
    model, parts = make_model(config, env_spec)

    def weights(params, key, batch):
        terms, states, beliefs = score(model, parts, config, env_spec.action, params, key, batch)
        likelihood = -(terms["image"] + terms["reward"])
        total = -sum(terms.values()).sum(axis=1)
        if "kl" not in terms:
            return total, total
        flat = states.latent.reshape(*likelihood.shape, -1)
        return total, bounds.log_weights(likelihood, flat, *latents(beliefs))

    def both(params, key, batch, draws):
        total, log_weights = jax.lax.map(lambda key: weights(params, key, batch), jax.random.split(key, draws))
        return dict(bound=total.mean(axis=0), tighter=bounds.importance_weighted(log_weights))

    return both
