"""Longer actions than an environment takes: what is behind them changes nothing and is recorded as it was asked for."""

import dataclasses

import numpy as np
import pytest

from tests.fakes import DISCRETE_SPEC
from tests.steps import assert_equal
from wmjax import envs
from wmjax.types import NonFiniteError, UsageError

ROWS, TAKEN, SIZE = 3, 2, 5


def make():
    return envs.make("fake:counter", ROWS, 7, action_size=TAKEN, episode_steps=4)


def test_a_padded_environment_is_the_environment():
    """Steps, next episodes and restored ones; with the same first actions whatever comes behind them."""
    plain, padded = make(), envs.pad(make(), SIZE)
    assert padded.spec == plain.spec._replace(action=plain.spec.action._replace(size=SIZE))

    def same(step, other, asked):
        assert other.prev_action.shape == (ROWS, SIZE) and other.prev_action.dtype == np.float32
        rest = np.where(step.is_first[:, None], 0, np.clip(asked[:, TAKEN:], -1, 1)).astype(np.float32)
        assert_equal(dataclasses.replace(step, prev_action=np.concatenate([step.prev_action, rest], axis=1)), other)

    rng = np.random.default_rng(0)
    same(plain.reset(), padded.reset(), np.zeros((ROWS, SIZE)))
    firsts = 0
    for t in range(7):  # into the second episode
        action = rng.uniform(-2, 2, (ROWS, SIZE)).astype(np.float32)
        step = plain.step(action[:, :TAKEN])
        same(step, padded.step(action), action)
        firsts += step.is_first.all()
        if t == 2:
            kept = (step, padded.snapshot(), action)
    assert firsts == 1
    same(kept[0], envs.pad(make(), SIZE).restore(kept[1]), kept[2])


def test_an_environment_that_takes_as_many_is_left_alone():
    env = make()
    assert envs.pad(env, TAKEN) is env


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(UsageError, match="actions of size 2 are not padded to 1"):
        envs.pad(make(), 1)
    discrete = make()
    discrete.spec = DISCRETE_SPEC
    with pytest.raises(UsageError, match="discrete actions of size 3 are not padded to 6"):
        envs.pad(discrete, 6)


def test_bad_actions_are_refused_behind_the_padding_too():
    env = envs.pad(make(), SIZE)
    with pytest.raises(UsageError, match="before reset"):
        env.step(np.zeros((ROWS, SIZE)))
    env.reset()
    for shape in ((ROWS, TAKEN), (ROWS + 1, SIZE)):
        with pytest.raises(UsageError, match="has shape"):
            env.step(np.zeros(shape))
    action = np.zeros((ROWS, SIZE))
    action[1, -1] = np.nan
    with pytest.raises(NonFiniteError, match=r"rows \[1\]"):
        env.step(action)
