"""Predictions of an episode from its images and its actions."""

import jax
import numpy as np

from tests.fakes import make_point_model
from wmjax.agents.open_loop import open_loop_images, restarted_images
from wmjax.types import ActionSpec, Step

B, T = 3, 6
KEY = jax.random.key(0)
PARAMS = np.float32(1)
SPEC = ActionSpec(2, False, -1.0, 1.0)
MODEL = make_point_model(2)
MODEL = MODEL._replace(decode=lambda params, state: state.position[:, None, None])


def make_steps():
    rng = np.random.default_rng(0)
    return Step(
        prev_action=rng.integers(-8, 8, (T, B, 2)).astype(np.float32) / 8,
        obs=rng.integers(0, 2, (T, B, 1, 1, 1), dtype=np.uint8) * 255,
        reward=np.zeros((T, B), np.float32),
        discount=np.ones((T, B), np.float32),
        is_first=np.arange(T)[:, None].repeat(B, axis=1) == 0,
        is_last=np.zeros((T, B), bool),
    )


def test_open_loop_images_see_the_context_and_then_only_the_actions():
    steps = make_steps()
    images = open_loop_images(MODEL, PARAMS, KEY, steps, action_spec=SPEC, context=2)
    assert images.shape == (T, B, 1, 1, 2)
    position = np.zeros((B, 2))
    for t in range(T):
        position = position + steps.prev_action[t] * (t > 0) + steps.obs[t, :, 0, 0] / 255 * (t < 2)
        np.testing.assert_array_equal(images[t, :, 0, 0], position)


def test_restarted_images_forget_what_they_imagined_at_every_restart():
    steps = make_steps()
    images = restarted_images(MODEL, PARAMS, KEY, steps, action_spec=SPEC, every=3)
    assert images.shape == (T, B, 1, 1, 2)
    belief, imagined = np.zeros((B, 2)), np.zeros((B, 2))
    for t in range(T):
        action = steps.prev_action[t] * (t > 0)
        belief, imagined = belief + action + steps.obs[t, :, 0, 0] / 255, imagined + action
        imagined = belief if t % 3 == 0 else imagined
        np.testing.assert_array_equal(images[t, :, 0, 0], imagined)
