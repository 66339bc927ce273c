"""The image-predicting models: what depends on what, tested by gradients; rewards of a whole horizon."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from tests.fakes import SPEC, random_steps, randomised
from tests.nets_by_hand import image_rewards
from wmjax import imagine
from wmjax.models import video
from wmjax.models.video.learner import model_loss, predict
from wmjax.ops.axes import time_first
from wmjax.ops.frames import unit_pixels
from wmjax.ops.gradients import clipped_adam
from wmjax.types import LearnerState

B, H, CONTEXT = 2, 2, 2
T = CONTEXT + H
KEY = jax.random.key(0)
BATCH = random_steps(SPEC, B, T)
ACTIONS = BATCH.prev_action.swapaxes(0, 1)  # [T, B, A]


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


@functools.cache
def step_of(kind):
    """Jitted: (state, actions [B, A]) -> the next state, imagined. All that is expected below is made by it."""
    model, params = case(kind)[1], case(kind).params
    return jax.jit(lambda state, action: model.imagine(params, KEY, state, action))


def begun(kind):
    """The state at time 1 of the batch, and the image that was predicted there."""
    images = np.asarray(unit_pixels(BATCH.obs))
    state = case(kind).model.initial(None, B).replace(image=images[:, 0])
    state = step_of(kind)(state, BATCH.prev_action[:, 1])
    return state.replace(image=images[:, 1]), state.image


def imagined(kind):
    """The images of the times after that state, [B, H, X, Y, C]."""
    state, images = begun(kind)[0], []
    for action in ACTIONS[CONTEXT:]:
        state = step_of(kind)(state, action)
        images.append(state.image)
    return np.stack(images, 1)


@functools.cache
def predicted(kind, **settings):
    """Jitted: (actions [T, B, A], probability) -> the images [B, T - 1, ...] of training, and the rewards."""
    config, model, _, params = case(kind, **settings)

    @jax.jit
    def run(actions, shown):
        batch = BATCH.replace(prev_action=time_first(actions))
        return predict(model, config, SPEC.action, params, KEY, batch, shown)

    return run


@pytest.mark.parametrize("late", [False, True])
def test_an_image_follows_from_the_action_that_led_to_it(late):
    """Time 2 is imagined; with late actions, as published, from the action that led to time 1."""
    look = predicted("ot_or", **(dict(actions_late=True) if late else {}))

    def changed(time):
        """Which rows of the image at time 2 change with row 0's action at a time."""
        other = ACTIONS.copy()
        other[time, 0] += 1
        one, two = (np.asarray(look(actions, 0.0)[0])[:, 1] for actions in (ACTIONS, other))
        return (one != two).any((1, 2, 3))

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
    """Neither loss trains the other's network, unless that is shared. True rewards reach no prediction of any of them.

    That is: the loss's gradient with respect to them is that of the comparison. The last step of row 1 begins another
    episode, and counts in neither.
    """
    config, model, _, params = case(kind, reward_gradient=gradient, reward_scale=3.0)
    is_first = BATCH.is_first.copy()
    is_first[1, -1] = True

    def loss(params, rewards, part, obs):
        """part: 1 for the rewards' loss, 0 for the images'."""
        batch = BATCH.replace(reward=rewards, obs=obs, is_first=is_first)
        total, found = model_loss(model, config, SPEC.action, params, KEY, batch, 0.5)
        return part * found["reward_loss"] + (1 - part) * found["image_loss"], (total, found)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (at_zero, _), (_, of_zero) = run(params, np.zeros_like(BATCH.reward), 1.0, BATCH.obs)
    (value, (total, found)), (grads, of_rewards) = run(params, BATCH.reward, 1.0, BATCH.obs)
    np.testing.assert_allclose(total, found["image_loss"] + 3 * found["reward_loss"], rtol=1e-5)
    other = BATCH.obs.copy()
    other[1, -1] = 255 - other[1, -1]
    (image_loss, _), (of_images, _) = run(params, BATCH.reward, 0.0, other)
    np.testing.assert_allclose(image_loss, found["image_loss"], rtol=1e-5)
    size, by_images = (
        {name: sum(np.abs(x).sum() for x in jax.tree.leaves(jax.device_get(each[name]))) for name in each}
        for each in (grads, of_images)
    )
    assert size["reward"] > 0 and by_images["body"] > 0
    assert (size["body"] > 0) == (gradient == "shared")
    assert (by_images["reward"] > 0) == (gradient == "shared" and kind == "ot_lr")
    counts = np.zeros((B, T))
    counts[:, -H if kind == "ot_or" else 1 :] = 1
    counts[1, -1] = 0
    predicted, rewards = (
        -np.asarray(of_zero) * counts.sum() / 2,
        counts * BATCH.reward,
    )  # by the gradient where all are 0
    assert predicted[counts == 1].all() and not predicted[counts == 0].any()
    np.testing.assert_allclose(of_rewards, 2 * (rewards - predicted) / counts.sum(), rtol=1e-4, atol=1e-6)
    for each, true in ((at_zero, 0), (value, rewards)):
        np.testing.assert_allclose(each, np.square(true - predicted).sum() / counts.sum(), rtol=1e-4)


@KINDS
def test_all_images_are_shown_at_first_and_none_at_last(kind):
    """Teacher forcing, then an open loop; both from the same context and equal to a loop of steps, bit for bit."""
    images, step = np.asarray(unit_pixels(BATCH.obs)), step_of(kind)
    state, image = begun(kind)
    forced, onward = [image], imagined(kind)
    for time in range(CONTEXT, T):
        state = step(state, ACTIONS[time])
        forced.append(state.image)
        state = state.replace(image=images[:, time])
    forced = np.stack(forced, 1)
    shown, hidden = (np.asarray(predicted(kind)(ACTIONS, share)[0]) for share in (1.0, 0.0))
    np.testing.assert_array_equal(shown, forced)
    np.testing.assert_array_equal(hidden[:, CONTEXT - 1 :], onward)
    np.testing.assert_array_equal(hidden[:, : CONTEXT - 1], shown[:, : CONTEXT - 1])
    assert np.abs(onward[:, 1] - forced[:, -1]).max() > 1e-2


def test_updates_show_fewer_and_fewer_images(monkeypatch):
    """One draw a step for all rows; the probability falls from 1 to 0, and stays there."""
    config, _, learner, _ = case("ot_lr", sampling_updates=4)
    assert [video.learner.probability_shown(config, n) for n in (0, 1, 4, 9)] == [1.0, 0.75, 0.0, 0.0]
    monkeypatch.setattr(video.learner, "model_loss", lambda *args: (args[3].sum(), dict(shown=args[-1])))
    params = np.zeros(1, np.float32)
    optimizer = clipped_adam(config.clip_norm, config.learning_rate, config.adam_epsilon)
    state = LearnerState(params, optimizer.init(params), np.int32(1))
    assert learner.update(state, KEY, BATCH)[1]["shown"] == 0.75


def test_rewards_of_a_horizon_are_read_from_its_images():
    """And `reward`, of one state, is the mean of what they would be if nothing moved."""
    _, model, _, params = case("ot_or")
    state = begun("ot_or")[0]
    images = np.concatenate([state.image[:, None], imagined("ot_or")], 1)  # [B, 1 + H, X, Y, C]

    @jax.jit
    def heads(state):
        found = imagine.predict_rewards(model, params, KEY, state, ACTIONS[CONTEXT:])
        return found, model.reward(params, state), model.decode(params, state), model.features(params, state)

    (rewards, discounts), reward, seen, features = heads(state)
    assert rewards.shape == (H, B) and (discounts == 1).all()
    own = jax.tree.map(np.asarray, params["reward"]["params"])
    still = np.repeat(images[:, :1], 1 + H, axis=1)
    np.testing.assert_allclose(rewards, image_rewards(own, images).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reward, image_rewards(own, still).mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen, BATCH.obs[:, 1] / np.float32(255) - 0.5, atol=1e-6)
    blocks = (images[:, 0, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].mean((1, 2)) for i in (0, 1) for j in (0, 1))
    expected = np.concatenate([np.asarray(state.cells[4][0]).mean((1, 2)), *blocks], axis=-1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
