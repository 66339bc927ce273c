"""Environment rows are seeded independently: between runs, between what they are for, between rows."""

import itertools

import numpy as np
import pytest

from tests.gym_walk import GymWalk
from wmjax import envs
from wmjax.envs.seeds import PURPOSES, row_seeds
from wmjax.types import UsageError

ROWS = 16


def test_no_two_pools_share_a_seed():
    pools = [row_seeds(seed, ROWS, purpose) for seed in range(10) for purpose in PURPOSES]
    assert len({*itertools.chain(*pools)}) == 10 * len(PURPOSES) * ROWS
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in itertools.chain(*pools))
    assert row_seeds(3, 2) == row_seeds(3, ROWS)[:2] != row_seeds(4, 2)


@pytest.mark.parametrize("name", ["fake:counter", "ball:diffusing"])
def test_pools_share_no_start(name):
    """Their first images; with rows seeded seed + row, 3 of 4 would be those of the next seed."""
    pools = [envs.make(name, 4, seed, purpose=purpose, size=256) for seed in range(10) for purpose in PURPOSES[:2]]
    images = np.concatenate([pool.reset().obs for pool in pools])
    assert len({image.tobytes() for image in images}) == len(images)


def test_own_environments_are_seeded_alike():
    given = []
    for seed in range(3):
        envs.adapt(lambda seed: given.append(seed) or GymWalk(seed), 4, seed, purpose="evaluation")
    assert set(given) == {*itertools.chain(*(row_seeds(seed, 4, "evaluation") for seed in range(3)))}


@pytest.mark.parametrize("family", ["dmc:cartpole_swingup", "atari:Pong"])
def test_neighbouring_seeds_of_envpool_share_no_row(family):
    def images(seed):
        env = envs.make(family, 3, seed, size=64)
        step = env.reset()
        for _ in range(20 if env.spec.action.discrete else 1):  # games begin alike but for their no-ops
            step = env.step(np.zeros_like(step.prev_action))
        return step.obs

    one, two, again = images(0), images(1), images(0)
    np.testing.assert_array_equal(one, again)
    assert not any((a == b).all() for a in one for b in two)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((-1, 4), "seed=-1"), ((2**31, 4), "seed=2147483648"), ((0, 0), "num_envs=0"), ((0, 2, "tests"), "'tests'")],
)
def test_bad_input(arguments, named):
    with pytest.raises(UsageError, match=named):
        row_seeds(*arguments)
