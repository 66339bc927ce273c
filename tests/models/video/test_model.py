"""The image-predicting models: what depends on what, tested by gradients; rewards of a whole horizon."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import SPEC, random_steps, randomised
from tests.nets_by_hand import image_rewards
from wmjax import imagine
from wmjax.models import video
from wmjax.models.video.learner import model_loss, predict
from wmjax.ops.axes import time_first

B, H, CONTEXT = 2, 2, 2
T = CONTEXT + H
KEY = jax.random.key(0)
BATCH = random_steps(SPEC, B, T)


class Case(NamedTuple):
    config: Any
    model: Any
    learner: Any
    params: Any


@functools.cache
def case(kind, **settings):
    """A model without noise and its random parameters."""
    tiny = dict(filters_divisor=32, reward_widths=(4,), latent_channels=0, horizon=H, context=CONTEXT)
    config = video.VideoConfig(kind=kind, **tiny, **settings)
    model, learner = video.make(config, SPEC)
    return Case(config, model, learner, randomised(jax.eval_shape(learner.init, KEY).params, 0.3))


KINDS = pytest.mark.parametrize("kind", ["ot_or", "ot_lr"])


def begun(model, params, actions):
    """The state at time 1 of the batch, after actions[1]."""
    embed = model.encode(params, BATCH.obs.reshape(-1, *SPEC.obs_shape)).reshape(B, T, *SPEC.obs_shape)
    inputs = dict(embed=embed[:, :2], is_first=BATCH.is_first[:, :2])
    prev_action = time_first(actions[:2])
    return imagine.filter(model, params, KEY, model.initial(params, B), prev_action=prev_action, **inputs)[0]


@pytest.mark.parametrize("late", [False, True])
def test_an_image_follows_from_the_action_that_led_to_it(late):
    """Time 2 is imagined; with late actions, as published, from the action that led to time 1."""
    _, model, _, params = case("ot_or", actions_late=late)

    @jax.jit
    def look(actions):
        states = imagine.open_loop(model, params, KEY, begun(model, params, actions), actions[2:])
        return model.decode(params, jax.tree.map(lambda x: x[0], states))

    def changed(time):
        """Which rows of the image at time 2 change with row 0's action at a time."""
        other = actions.copy()
        other[time, 0] += 1
        return (look(other) != look(actions)).any((1, 2, 3))

    actions = np.array(time_first(BATCH.prev_action))
    reached = np.stack([changed(time) for time in range(T)])
    np.testing.assert_array_equal(reached[:, 0], [False, True, not late, False])
    assert not reached[:, 1].any()


@pytest.mark.parametrize(
    ("kind", "gradient"),
    [
        ("ot_or", "stopped"),
        ("ot_or", "shared"),
        ("ot_lr", "stopped"),
        pytest.param("ot_lr", "shared", marks=pytest.mark.slow),  # to compile; of ot_or it shows the same
    ],
)
def test_what_rewards_train_and_what_reaches_them(kind, gradient):
    """The network of images alone where that is shared. The true rewards reach no prediction of any of them.

    That is: the loss's gradient with respect to them is that of the comparison.
    """
    config, model, _, params = case(kind, reward_gradient=gradient)

    def loss(params, batch):
        return model_loss(model, config, SPEC.action, params, KEY, batch, 0.5)[1]["reward_loss"]

    @jax.jit
    def run(rewards):
        grads = jax.grad(lambda params, rewards: loss(params, BATCH.replace(reward=rewards)), argnums=(0, 1))
        batch = BATCH.replace(reward=jnp.zeros_like(rewards))
        return *grads(params, rewards), predict(model, config, SPEC.action, params, KEY, batch, 0.5)[1]

    grads, of_rewards, predicted = run(BATCH.reward)
    size = {name: sum(np.abs(x).sum() for x in jax.tree.leaves(jax.device_get(grads[name]))) for name in grads}
    assert size["reward"] > 0
    assert (size["body"] > 0) == (gradient == "shared")
    count = predicted.shape[1]
    expected = np.zeros((B, T))
    expected[:, -count:] = 2 * (BATCH.reward[:, -count:] - predicted) / (B * count)
    np.testing.assert_allclose(of_rewards, expected, rtol=1e-4, atol=1e-6)


@KINDS
def test_all_images_are_shown_at_first_and_none_at_last(kind):
    """Bit for bit teacher forcing, then an open loop; both from the same context."""
    config, model, _, params = case(kind)
    batch = random_steps(SPEC, B, T)
    actions = time_first(jnp.asarray(batch.prev_action))

    @jax.jit
    def run(shown):
        return predict(model, config, SPEC.action, params, KEY, batch, shown)[0]

    @jax.jit
    def expected():
        embed = model.encode(params, batch.obs.reshape(-1, *SPEC.obs_shape)).reshape(B, T, *SPEC.obs_shape)
        inputs = dict(prev_action=batch.prev_action, embed=embed, is_first=batch.is_first)
        forced = imagine.filter(model, params, KEY, model.initial(params, B), **inputs)[2][:, 1:]
        states = imagine.open_loop(model, params, KEY, begun(model, params, actions), actions[CONTEXT:])
        return forced, time_first(states.image)

    forced, onward = expected()
    np.testing.assert_array_equal(run(1.0), forced)
    np.testing.assert_array_equal(run(0.0)[:, CONTEXT - 1 :], onward)
    np.testing.assert_array_equal(run(0.0)[:, : CONTEXT - 1], forced[:, : CONTEXT - 1])
    assert (np.asarray(onward)[:, 1] != np.asarray(forced)[:, -1]).any()


def test_updates_show_fewer_and_fewer_images():
    """One draw a step for all rows; the probability falls from 1 to 0, and stays there."""
    config = case("ot_lr", sampling_updates=4)[0]
    assert [video.learner.probability_shown(config, n) for n in (0, 1, 4, 9)] == [1.0, 0.75, 0.0, 0.0]


def test_rewards_of_a_horizon_are_read_from_its_images():
    """And `reward`, of one state, is the mean of what they would be if nothing moved."""
    _, model, _, params = case("ot_or")
    actions = time_first(jnp.asarray(BATCH.prev_action))

    @jax.jit
    def both():
        state = begun(model, params, actions)
        states = imagine.open_loop(model, params, KEY, state, actions[2:])
        images = jnp.concatenate([state.image[None], states.image])  # [1 + H, B, X, Y, C]
        found = imagine.predict_rewards(model, params, KEY, state, actions[2:])
        return found, model.reward(params, state), model.decode(params, state), jnp.moveaxis(images, 0, 1)

    (rewards, discounts), reward, seen, images = both()
    assert rewards.shape == (H, B) and (discounts == 1).all()
    own = jax.tree.map(np.asarray, params["reward"]["params"])
    still = np.repeat(images[:, :1], 1 + H, axis=1)
    np.testing.assert_allclose(rewards, image_rewards(own, np.asarray(images)).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reward, image_rewards(own, still).mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen, BATCH.obs[:, 1] / np.float32(255) - 0.5, atol=1e-6)
