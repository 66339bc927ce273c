"""The bouncing ball: physics against plain numpy, images, episodes, snapshots and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.steps import FIELDS, assert_equal
from wmjax import envs
from wmjax.envs import bouncing_ball
from wmjax.envs.bouncing_ball import RADIUS, SPEED, Ball
from wmjax.types import UsageError

NOTHING = np.zeros(2, np.int32)


def centre(image):
    """The middle of the white pixels, in the box's units."""
    weight = image[..., 0] / image.sum()
    middles = (np.arange(len(image)) + 0.5) / len(image)
    return np.array([weight.sum(1) @ middles, weight.sum(0) @ middles])


def test_walls_reflect():
    ball = Ball(jnp.array([0.9, 0.5]), jnp.array([0.03, -0.02]))
    after = bouncing_ball.move(ball, jnp.array([0.01, 0.005]))
    np.testing.assert_allclose(after.position, [2 * (1 - RADIUS) - 0.94, 0.485], rtol=1e-6)
    np.testing.assert_allclose(after.velocity, [-0.03, -0.02])
    corner = bouncing_ball.move(Ball(jnp.array([0.08, 0.08]), jnp.array([-0.02, -0.02])), jnp.zeros(2))
    np.testing.assert_allclose(corner.position, [2 * RADIUS - 0.06] * 2, rtol=1e-6)
    np.testing.assert_allclose(corner.velocity, [0.02, 0.02])


def test_the_image_shows_the_ball():
    image = np.array(bouncing_ball.draw(jnp.array([0.3, 0.7]), 80))
    assert image.shape == (80, 80, 1) and image.dtype == np.uint8 and image.max() == 255
    np.testing.assert_allclose(centre(image), [0.3, 0.7], atol=2e-3)
    np.testing.assert_allclose(image.sum() / 255, np.pi * (80 * RADIUS) ** 2, rtol=0.02)


def test_a_drifting_ball_keeps_its_speed_and_a_diffusing_one_is_pushed():
    """Velocities between reflections from the images: constant, or with the noise that the module states."""
    found = {}
    for task in ("drifting", "diffusing"):
        steps = bouncing_ball.sequences(jax.random.key(0), task, 40, 12, 80)
        places = np.array([[centre(image) for image in row] for row in np.array(steps.obs)])
        moved = np.diff(places, axis=1)
        free = (places[:, 1:] > 0.25) & (places[:, 1:] < 0.75)  # away from walls at both ends of a step
        free = free[:, 1:] & free[:, :-1]
        found[task] = np.diff(moved, axis=1)[free]
        assert places.min() > RADIUS - 0.01 and places.max() < 1 - RADIUS + 0.01
        speeds = np.linalg.norm(moved[:, 0], axis=-1)[(free[:, 0]).all(-1)]
        if task == "drifting":
            np.testing.assert_allclose(speeds, SPEED, atol=2e-3)
    assert np.abs(found["drifting"]).max() < 3e-3
    assert found["diffusing"].std() == pytest.approx(np.sqrt(2) * bouncing_ball.NOISE["diffusing"], rel=0.15)


def test_life_of_an_episode():
    env = envs.make("ball:diffusing", 2, 3, size=16, episode_steps=3)
    steps = [env.reset()] + [env.step(NOTHING) for _ in range(7)]
    for index, step in enumerate(steps):
        np.testing.assert_array_equal(step.is_first, [index % 4 == 0] * 2)
        np.testing.assert_array_equal(step.is_last, [index % 4 == 3] * 2)
        assert step.discount.all() and not step.reward.any()
        assert [getattr(step, name).dtype for name in FIELDS] == [
            np.int32, np.uint8, np.float32, np.float32, bool, bool,
        ]  # fmt: skip
    assert (steps[0].obs != steps[4].obs).any() and (steps[0].obs[0] != steps[0].obs[1]).any()
    jumps = [np.linalg.norm(centre(steps[3].obs[row]) - centre(steps[4].obs[row])) for row in range(2)]
    assert max(jumps) > 2 * SPEED, "it begins anywhere"
    again = envs.make("ball:diffusing", 2, 3, size=16, episode_steps=3)
    other = envs.make("ball:diffusing", 2, 9, size=16, episode_steps=3)
    assert_equal(again.reset(), steps[0])
    assert (other.reset().obs != steps[0].obs).any()


def test_snapshot_and_restore():
    env = envs.make("ball:diffusing", 2, 0, size=16, episode_steps=4)
    env.reset()
    env.step(NOTHING)
    current, snapshot = env.step(NOTHING), env.snapshot()
    after = [env.step(NOTHING) for _ in range(5)]
    other = envs.make("ball:diffusing", 2, 0, size=16, episode_steps=4)
    assert_equal(other.restore(snapshot), current)
    for step in after:
        assert_equal(other.step(NOTHING), step)
    with pytest.raises(UsageError, match="another environment"):
        envs.make("ball:diffusing", 2, 1, size=16, episode_steps=4).restore(snapshot)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ball:bouncing", {}, "unknown ball task 'bouncing'"),
        ("ball:drifting", dict(colour=1), "unknown ball option 'colour'"),
        ("ball:drifting", dict(size=8), "size=8"),
        ("ball:drifting", dict(episode_steps=0), "episode_steps=0"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(UsageError, match=message):
        envs.make(name, 1, 0, **options)


def test_misuse():
    env = envs.make("ball:drifting", 1, 0)
    for call in (lambda: env.step([0]), env.snapshot):
        with pytest.raises(UsageError, match="before reset"):
            call()
    env.reset()
    with pytest.raises(UsageError, match="out of range"):
        env.step([1])
