"""Bounds where the exact likelihood is known: a Kalman filter, a ball whose pushes are known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax import imagine
from wmjax.envs import bouncing_ball
from wmjax.ops import bernoulli, bounds, gaussian
from wmjax.ops.axes import fold, unfold_like
from wmjax.types import WorldModel

log_weights, importance_weighted = jax.jit(bounds.log_weights), jax.jit(bounds.importance_weighted)
kl_diagonal, bernoulli_kl = jax.jit(gaussian.kl_diagonal), jax.jit(bernoulli.kl, static_argnums=2)
T, KEY = 6, jax.random.key(0)
PUSH, SEEN = 0.8, 0.5  # standard deviations of the toy's latent and of what is seen of its state
DRIFT = np.array([0.3, -1.0, 0.5, 0.0, 2.0, -0.7])


def density(x, mean, std):
    return -0.5 * np.square((x - mean) / std) - np.log(std) - 0.5 * np.log(2 * np.pi)


def kalman(seen, memory):
    """Exact log p(seen) of x' = memory x + drift + N(0, PUSH), seen = x' + N(0, SEEN), from x = 0."""
    mean, variance, total = 0.0, 0.0, 0.0
    for o, drift in zip(seen, DRIFT, strict=True):
        mean, variance = memory * mean + drift, memory**2 * variance + PUSH**2
        total += density(o, mean, np.sqrt(variance + SEEN**2))
        gain = variance / (variance + SEEN**2)
        mean, variance = mean + gain * (o - mean), (1 - gain) * variance
    return total


def draws(seen, memory, count, off=0.0):
    """(log likelihood, latents, prior, posterior) of `count` draws; off: error of the posterior's mean."""
    noise = np.random.default_rng(0).normal(size=(T, count))
    gain = PUSH**2 / (PUSH**2 + SEEN**2)
    x, rows = np.zeros(count), []
    for t in range(T):
        prior = memory * x + DRIFT[t]
        mean, std = prior + gain * (seen[t] - prior) + off, np.full(count, np.sqrt(1 - gain) * PUSH)
        x = mean + std * noise[t]
        rows.append((density(seen[t], x, SEEN), x, prior, np.full(count, PUSH), mean, std))
    likelihood, *latents = (np.stack(column, axis=1).astype(np.float32) for column in zip(*rows, strict=True))
    x, prior_mean, prior_std, mean, std = (y[..., None] for y in latents)
    return likelihood, x, (prior_mean, prior_std), (mean, std)


SEQUENCE = [0.9, -1.5, 2.0, 0.1, 2.2, 1.4]


def test_the_bound_of_the_true_posterior_is_the_likelihood():
    """Without memory an image tells all that is known about its latent: every draw has the same weight."""
    weights = log_weights(*draws(SEQUENCE, 0.0, 40))
    np.testing.assert_allclose(weights, np.full(40, kalman(SEQUENCE, 0.0)), rtol=1e-5)
    np.testing.assert_allclose(importance_weighted(weights[:, None]), [kalman(SEQUENCE, 0.0)], rtol=1e-5)


@pytest.mark.parametrize("off", [0.0, 0.25])
def test_bounds_rise_with_the_draws_towards_the_likelihood(off):
    """With memory the future tells more than the filter knows: what it draws has uneven weights."""
    exact, groups = kalman(SEQUENCE, 1.0), 2000
    drawn = draws(SEQUENCE, 1.0, 50 * groups, off)
    weights = log_weights(*drawn)
    each = [np.asarray(importance_weighted(weights.reshape(50, groups)[:k])) for k in (1, 5, 50)]
    mean, error = np.array([x.mean() for x in each]), np.array([x.std() / np.sqrt(groups) for x in each])
    assert mean[0] < exact - 0.3 and (np.diff(mean) > 4 * error[:2]).all()
    assert (mean < exact + 3 * error).all() and mean[2] > exact - 0.25
    likelihood, _, prior, posterior = drawn
    elbo = (likelihood - kl_diagonal(*posterior, *prior)).sum(axis=1)
    assert abs(elbo.mean() - weights.mean()) < 3 * (elbo - weights).std() / np.sqrt(50 * groups)


def test_a_worse_posterior_has_a_lower_bound():
    good, bad = (log_weights(*draws(SEQUENCE, 1.0, 20_000, off)) for off in (0.0, 0.25))
    assert bad.mean() < good.mean() - 0.1


def test_importance_weights_by_hand():
    weights = np.log([[1.0, 8.0], [3.0, 2.0]])
    np.testing.assert_allclose(importance_weighted(jnp.array(weights)), np.log([2.0, 5.0]), rtol=1e-6)
    far = jnp.array([[-2000.0], [-2000.0]])  # sums of exponentials would be zero
    np.testing.assert_allclose(importance_weighted(far), [-2000.0])


SIGMA, NARROW, SIZE, FLOOR = 0.02, 0.001, 16, 1e-3
BALLS, STEPS = 64, 5


class Told(NamedTuple):
    """State of the model of a ball."""

    ball: bouncing_ball.Ball  # leaves [B, 2]
    latent: jax.Array  # float32 [B, 2], the push


def make_ball_model():
    """Knows all about the ball: its latent is the push, its embedding is the true one, its image is the ball's."""

    def observe(params, key, state, prev_action, embed, is_first):
        latent = embed + NARROW * jax.random.normal(key, embed.shape)
        return Told(jax.vmap(bouncing_ball.move)(state.ball, latent), latent), (embed, jnp.full(embed.shape, NARROW))

    def decode(params, state):
        image = jax.vmap(lambda place: bouncing_ball.draw(place, SIZE))(state.ball.position) / 255.0
        p = jnp.clip(image, FLOOR, 1 - FLOOR)
        return jnp.log(p) - jnp.log1p(-p)

    return WorldModel(None, None, observe, None, None, None, None, decode, ())


def moved(place, speed, push):
    """One step of a ball in numpy: walls reflect."""
    low, high = bouncing_ball.RADIUS, 1 - bouncing_ball.RADIUS
    there, speed = place + speed + push, speed.copy()
    for i in range(2):
        if not low <= there[i] <= high:
            there[i] = 2 * (low if there[i] < low else high) - there[i]
            speed[i] *= -1
    return there, speed


def picture(place):
    image = np.zeros((SIZE, SIZE))
    for i, j in np.ndindex(SIZE, SIZE):
        away = np.hypot((i + 0.5) / SIZE - place[0], (j + 0.5) / SIZE - place[1])
        image[i, j] = np.rint(255 * np.clip((bouncing_ball.RADIUS - away) * SIZE + 0.5, 0, 1))
    return image / 255


def pixel_nats(x, p):
    p = np.clip(p, FLOOR, 1 - FLOOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(x > 0, x * np.log(x / p), 0) + np.where(x < 1, (1 - x) * np.log((1 - x) / (1 - p)), 0)
    return parts.sum()


def test_perfect_knowledge_of_the_ball_scores_what_arithmetic_says():
    rng = np.random.default_rng(2)
    pushes = SIGMA * rng.normal(size=(BALLS, STEPS, 2))
    first = jax.jit(jax.vmap(bouncing_ball.begin))(jax.random.split(KEY, BALLS))
    noise = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (BALLS, 2)), out_axes=1))(jax.random.split(KEY, STEPS))
    noise = np.float64(noise)
    pixels, arithmetic = np.zeros((BALLS, STEPS, SIZE, SIZE, 1)), np.zeros((BALLS, STEPS))
    for b in range(BALLS):
        real = imagined = tuple(np.float64(x[b]) for x in first)
        for t in range(STEPS):
            real, imagined = moved(*real, pushes[b, t]), moved(*imagined, pushes[b, t] + NARROW * noise[b, t])
            pixels[b, t, ..., 0] = picture(real[0])
            divergence = np.log(SIGMA / NARROW) + (NARROW**2 + pushes[b, t] ** 2) / (2 * SIGMA**2) - 0.5
            arithmetic[b, t] = pixel_nats(pixels[b, t, ..., 0], picture(imagined[0])) + divergence.sum()

    model = make_ball_model()

    @jax.jit
    def run(first, pushes):
        none, start = jnp.zeros((BALLS, STEPS)), Told(first, jnp.zeros((BALLS, 2)))
        states, posterior = imagine.filter(
            model, None, KEY, start, prev_action=none[..., None], embed=pushes, is_first=none > 0
        )[1:]
        return unfold_like(model.decode(None, fold(states)), states), states.latent, posterior

    logits, latent, posterior = run(first, pushes.astype(np.float32))
    image = bernoulli_kl(pixels.astype(np.float32), logits, 3)
    prior = np.zeros(pushes.shape, np.float32), np.full(pushes.shape, SIGMA, np.float32)
    bound = image + kl_diagonal(*posterior, *prior)
    np.testing.assert_allclose(bound.sum(axis=1), arithmetic.sum(axis=1), rtol=2e-3, atol=0.2)
    np.testing.assert_allclose(bound.mean(), arithmetic.mean(), rtol=1e-3)
    weights = -log_weights(-image, latent, prior, posterior)
    expected = 2 * np.log(SIGMA / NARROW) * STEPS  # pushes on average, nearly all of the posterior's certainty
    latent_nats = weights.mean() - image.sum(axis=1).mean()
    assert abs(latent_nats - expected) < 4 * (2 * STEPS / BALLS) ** 0.5
