"""The adapter, on small environments written after gymnasium's and dm_env's interfaces."""

import types

import dm_env
import numpy as np
import pytest

from wmjax import envs
from wmjax.types import NonFiniteError, Step, UsageError

FIELDS = tuple(Step.__dataclass_fields__)


def box(low, high):
    low, high = np.float32(low), np.float32(high)
    return types.SimpleNamespace(shape=low.shape, dtype=low.dtype, low=low, high=high)


class GymWalk:
    """Gymnasium's way: a noisy walk with actions in [0, 10]; truncates after 4 steps, terminates above 12."""

    def __init__(self, seed):
        self.action_space = box([0, -1], [10, 3])
        self.actions = []

    def reset(self, *, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.place, self.elapsed = self.rng.uniform(0, 5), 0
        return self.image(), {}

    def step(self, action):
        self.actions.append(action)
        self.place, self.elapsed = self.place + action[0] * self.rng.uniform(0, 0.5), self.elapsed + 1
        return self.image(), self.place, self.place > 12, self.elapsed >= 4, {}

    def image(self):
        return np.full((4, 5, 3), self.place * 5, np.uint8)


class DmChoice:
    """dm_env's way: three discrete actions, action 2 terminates, a time limit after 3 steps; grey pixels in a dict."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def action_spec(self):
        return dm_env.specs.DiscreteArray(3)

    def reset(self):
        self.elapsed = 0
        return dm_env.restart(self.observe())

    def step(self, action):
        self.elapsed += 1
        if action == 2:
            return dm_env.termination(5.0, self.observe())
        make = dm_env.truncation if self.elapsed == 3 else dm_env.transition
        return make(float(action), self.observe())

    def observe(self):
        return {"pixels": self.rng.integers(0, 255, (6, 6), dtype=np.uint8)}


def assert_equal(step: Step, other: Step) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(step, field), getattr(other, field), err_msg=field)


def test_gymnasium_episode_and_bounds():
    made = []
    env = envs.adapt(lambda seed: made.append(GymWalk(seed)) or made[-1], 2, 3)
    assert env.spec.obs_shape == (4, 5, 3) and env.spec.action == (2, False, -1.0, 1.0)
    first = env.reset()
    np.testing.assert_array_equal(first.is_first, [True, True])
    for index in range(4):
        step = env.step(np.float32([[-1, -1], [-0.8, 2]]))
        assert step.reward.dtype == np.float32 and step.is_last.all() == (index == 3)
        np.testing.assert_array_equal(step.discount, [1, 1])
        np.testing.assert_array_equal(step.prev_action, np.float32([[-1, -1], [-0.8, 1]]))
    np.testing.assert_allclose(made[-2].actions[0], [0, -1])
    np.testing.assert_allclose(made[-1].actions[0], [1, 3], rtol=1e-6)
    step = env.step(np.ones((2, 2)))
    assert np.any(step.obs != first.obs), "only the first reset takes the seed"
    assert step.is_first.all() and not step.reward.any() and not step.prev_action.any()
    with pytest.raises(NonFiniteError):
        env.step(np.full((2, 2), np.nan))


def test_true_termination_of_one_row():
    env = envs.adapt(DmChoice, 2, 0)
    assert env.spec.obs_shape == (6, 6, 1) and env.spec.action == (3, True, 0, 2)
    env.reset()
    step = env.step(np.array([1, 2]))
    np.testing.assert_array_equal(step.discount, [1, 0])
    np.testing.assert_array_equal(step.is_last, [False, True])
    np.testing.assert_array_equal(step.reward, [1, 5])
    step = env.step(np.array([1, 2]))
    np.testing.assert_array_equal(step.is_first, [False, True])
    np.testing.assert_array_equal(step.prev_action, [1, 0])
    assert step.prev_action.dtype == np.int32
    step = env.step(np.array([0, 0]))  # the first row's third step: a time limit
    np.testing.assert_array_equal(step.is_last, [True, False])
    np.testing.assert_array_equal(step.discount, [1, 1])


@pytest.mark.parametrize("make_env", [GymWalk, DmChoice])
def test_restore_is_exact(make_env, tmp_path):
    env = envs.adapt(make_env, 3, 1)
    rng = np.random.default_rng(0)
    shape = (20, 3) if env.spec.action.discrete else (20, 3, 2)
    actions = rng.integers(0, 3, shape) if env.spec.action.discrete else rng.uniform(-1, 1, shape)
    env.reset()
    for at, action in enumerate(actions[:11]):
        step = env.reset() if at == 6 else env.step(action)
    np.savez(tmp_path / "snapshot.npz", **env.snapshot())
    snapshot = dict(np.load(tmp_path / "snapshot.npz"))
    fresh = envs.adapt(make_env, 3, 1)
    assert_equal(fresh.restore(snapshot), step)
    future = [env.step(action) for action in actions[11:]]
    for action, expected in zip(actions[11:], future, strict=True):
        assert_equal(fresh.step(action), expected)
    assert_equal(env.restore(snapshot), step)  # backwards, in a used one
    with pytest.raises(UsageError, match="another environment"):
        envs.adapt(make_env, 3, 2).restore(snapshot)


def test_render_function_and_refusals():
    class Symbolic(GymWalk):
        def image(self):
            return np.array([self.place])

    with pytest.raises(UsageError, match="pass render="):
        envs.adapt(Symbolic, 1, 0)
    env = envs.adapt(Symbolic, 1, 0, render=lambda each: np.full((8, 8), each.place, np.uint8))
    assert env.reset().obs.shape == (1, 8, 8, 1)
    with pytest.raises(UsageError, match="neither"):
        envs.adapt(lambda seed: object(), 1, 0)
    with pytest.raises(UsageError, match="before reset"):
        envs.adapt(DmChoice, 1, 0).step(np.array([0]))
    env = envs.adapt(DmChoice, 1, 0)
    env.reset()
    for action in (np.array([3]), np.array([0.0]), np.zeros((1, 1), int)):
        with pytest.raises(UsageError, match="action"):
            env.step(action)
