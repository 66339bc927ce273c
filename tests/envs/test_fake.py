"""The fake environments: known optimum, the life of an episode, true termination, snapshots and refusals."""

import numpy as np
import pytest

from tests.steps import FIELDS, assert_equal
from wmjax import envs
from wmjax.envs.concatenated import JoinedVecEnv
from wmjax.types import Step, UsageError


def place(frame: np.ndarray, channel: int = 0) -> tuple[float, float]:
    """Returns the centre of the bright square in [-4, 4], as far as pixels tell: with 64 pixels, to about 0.15."""
    rows, columns = np.nonzero(frame[..., channel] == 255)
    side = frame.shape[0] // 5
    return tuple(8 * (axis.min() / (frame.shape[0] - side)) - 4 for axis in (rows, columns))


def test_known_optimum_read_from_the_image():
    """Moving against what the image shows reaches the best reward, 1, and the reward is what the image says."""
    env = envs.make("fake:counter", 3, 0, size=64)
    step = env.reset()
    for _ in range(4):
        where = np.array([place(frame) for frame in step.obs])
        step = env.step(-where)
        after = np.array([place(frame) for frame in step.obs])
        np.testing.assert_allclose(step.reward, 1 - np.abs(after).mean(axis=-1), atol=0.1)
    assert np.all(step.reward > 0.9)


def test_life_of_an_episode():
    """Time limit inside a repeat: decisions of 5, 5 and 2 control steps; rewards of each are summed."""
    env = envs.make("fake:counter", 2, 0, action_repeat=5, action_size=3)
    one = envs.make("fake:counter", 2, 0, action_size=3)
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, (8, 2, 3)).astype(np.float32)
    steps = [env.reset()] + [env.step(action) for action in actions]
    one.reset()
    for index, step in enumerate(steps):
        np.testing.assert_array_equal(step.is_first, [index % 4 == 0] * 2)
        np.testing.assert_array_equal(step.is_last, [index % 4 == 3] * 2)
        np.testing.assert_array_equal(step.discount, [1, 1])
        if index % 4 == 0:
            assert not step.reward.any() and not step.prev_action.any()
            if index:
                one.step(actions[0])
        else:
            np.testing.assert_array_equal(step.prev_action, actions[index - 1])
            singles = [one.step(actions[index - 1]).reward for _ in range(5 if index % 4 < 3 else 2)]
            np.testing.assert_allclose(step.reward, np.sum(singles, axis=0), rtol=1e-6)
        assert [getattr(step, name).dtype for name in FIELDS] == [
            np.float32,
            np.uint8,
            np.float32,
            np.float32,
            bool,
            bool,
        ]
    assert np.any(steps[0].obs != steps[4].obs) and np.any(steps[0].obs[0] != steps[0].obs[1])


def test_terminating_rows_end_apart():
    """A row that walks over the edge ends with discount 0, by itself, and begins again at the next decision."""
    env = envs.make("fake:terminating", 2, 0, episode_steps=20)
    env.reset()
    action = np.float32([[9, 0], [0, 0]])  # clipped to 1
    steps = [env.step(action) for _ in range(8)]
    ends = [index for index, step in enumerate(steps) if step.is_last[0]]
    assert ends and not any(step.is_last[1] or step.is_first[1] for step in steps)
    np.testing.assert_array_equal(steps[ends[0]].discount, [0, 1])
    np.testing.assert_array_equal(steps[ends[0]].prev_action, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(steps[ends[0] + 1].is_first, [True, False])
    np.testing.assert_array_equal(steps[ends[0] + 1].discount, [1, 1])
    assert all(step.discount.all() for index, step in enumerate(steps) if index not in ends)


@pytest.mark.parametrize("task", ["counter", "terminating"])
def test_restore_is_exact(task, tmp_path):
    env = envs.make(f"fake:{task}", 4, 5, action_repeat=2)
    env.reset()
    actions = np.random.default_rng(0).uniform(-2, 2, (40, 4, 2)).astype(np.float32)
    for at in (0, 5, 6, 7, 19):
        for action in actions[:at]:
            step = env.step(action)
        np.savez(tmp_path / "snapshot.npz", **env.snapshot())
        future = [env.step(action) for action in actions[20:]]
        fresh = envs.make(f"fake:{task}", 4, 5, action_repeat=2)
        restored = fresh.restore(dict(np.load(tmp_path / "snapshot.npz")))
        if at:
            assert_equal(restored, step)
        for action, expected in zip(actions[20:], future, strict=True):
            assert_equal(fresh.step(action), expected)


def test_steps_do_not_share_memory():
    """Writing to a returned Step or to a snapshot changes nothing."""
    env, other = (envs.make("fake:counter", 1, 0) for _ in range(2))
    for each in (env, other):
        each.reset()
    step = other.step(np.ones((1, 2)))
    for field in FIELDS:
        getattr(step, field)[...] = 1
    for array in other.snapshot().values():
        if isinstance(array, np.ndarray):
            array[...] = 1
    env.step(np.ones((1, 2)))
    assert_equal(env.step(np.ones((1, 2))), other.step(np.ones((1, 2))))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fake:conter", {}, "Did you mean counter"),
        ("fake:counter", {"action_sise": 2}, "Did you mean action_size"),
        ("fake:counter", {"action_size": 7}, "integer in [1, 6]"),
        ("fake:counter", {"episode_steps": 0}, "episode_steps=0"),
        ("fake:counter", {"size": 7}, "size=7"),
        ("fake:counter", {"action_repeat": None}, "action_repeat=None"),
    ],
)
def test_refusals(name, options, said):
    with pytest.raises(UsageError) as error:
        envs.make(name, 1, 0, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_refused_order_and_snapshot():
    env = envs.make("fake:counter", 1, 0)
    with pytest.raises(UsageError, match="before reset"):
        env.step(np.zeros((1, 2)))
    with pytest.raises(UsageError, match="before reset"):
        env.snapshot()
    env.reset()
    with pytest.raises(UsageError, match="another environment"):
        envs.make("fake:counter", 1, 1).restore(env.snapshot())


def test_joined_pools_are_each_what_they_are_alone():
    def pools():
        return [envs.make("fake:terminating", 2, seed, episode_steps=7) for seed in (0, 9)]

    alone, joined = pools(), JoinedVecEnv(pools())
    assert joined.spec == alone[0].spec
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 4, *alone[0].reset().prev_action.shape[1:]))
    alone, steps = pools(), [joined.reset()]
    assert_joined(steps[0], [env.reset() for env in alone])
    for action in actions.astype(np.float32):
        steps.append(joined.step(action))
        assert_joined(steps[-1], [alone[0].step(action[:2]), alone[1].step(action[2:])])
    restored = JoinedVecEnv(pools())
    assert_equal(restored.restore(joined.snapshot()), steps[-1])
    assert_equal(restored.step(actions[0].astype(np.float32)), joined.step(actions[0].astype(np.float32)))


def assert_joined(step: Step, parts: list[Step]) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(step, field), np.concatenate([getattr(part, field) for part in parts]))


def test_an_observation_may_hold_more_than_the_image():
    env, plain = (envs.make("fake:counter", 2, 5, **options) for options in (dict(observe="image+state"), {}))
    step, other = env.reset(), plain.reset()
    assert env.spec.obs["state"].shape == (2,) and env.spec.obs_shape == plain.spec.obs_shape
    for _ in range(3):
        np.testing.assert_array_equal(step.obs["image"], other.obs)
        np.testing.assert_allclose(
            1 - np.abs(step.obs["state"]).mean(-1)[~step.is_first], step.reward[~step.is_first], rtol=1e-5
        )
        step, other = (each.step(np.full((2, 2), 0.5, np.float32)) for each in (env, plain))
    again = envs.make("fake:counter", 2, 5, observe="image+state")
    again.reset()
    again.restore(env.snapshot())
    action = np.full((2, 2), -0.5, np.float32)
    np.testing.assert_array_equal(again.step(action).obs["state"], env.step(action).obs["state"])
    with pytest.raises(UsageError, match="image"):
        envs.make("fake:counter", 1, 0, observe="sound")
