"""Environments that users may bring, and how the adapter refuses them."""

import dm_env
import numpy as np
import pytest

from tests.gym_walk import Discrete
from wmjax import envs
from wmjax.types import UsageError


class GymStub:
    """Gymnasium's way: shows `image` and takes every action; methods are replaced in the tests."""

    def __init__(self, seed=0, action_space=None, image=(6, 6, 3)):
        self.action_space = action_space or Discrete(n=2)
        self.shape, self.actions, self.closed = image, [], False

    def reset(self, *, seed=None):
        return np.zeros(self.shape, np.uint8), {}

    def step(self, action):
        self.actions.append(action)
        return np.zeros(self.shape, np.uint8), 1.0, False, False, {}

    def close(self):
        self.closed = True


class DmStub:
    """dm_env's way: the same, with an action spec and the (reward, discount) of every step."""

    def __init__(self, spec, arrival=(1.0, 1.0)):
        self.spec, self.arrival, self.actions = spec, arrival, []

    def action_spec(self):
        return self.spec

    def reset(self):
        return dm_env.restart(np.zeros((6, 6, 3), np.uint8))

    def step(self, action):
        self.actions.append(action)
        return dm_env.TimeStep(dm_env.StepType.MID, *self.arrival, np.zeros((6, 6, 3), np.uint8))


def refused(named, make_env, rows=2, error=UsageError):
    """adapt() refuses in one line."""
    with pytest.raises(error, match=named) as caught:
        envs.adapt(make_env, rows, 0)
    assert "\n" not in str(caught.value)


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
