"""Blocks of pixels and actions beside every cell."""

import numpy as np
import pytest

from tests.fakes import normal
from tests.nets_by_hand import to_depth, to_space
from wmjax.nets import blocks
from wmjax.nets.blocks import with_action


def test_actions_stand_beside_every_cell():
    grid, action = normal(2, 3, 4, 5), normal(2, 6, seed=1)
    both = np.asarray(with_action(grid, action))
    np.testing.assert_array_equal(both[..., :5], grid)
    for i, j in np.ndindex(3, 4):
        np.testing.assert_array_equal(both[:, i, j, 5:], action)


@pytest.mark.parametrize("size", [2, 4])
def test_blocks_equal_loops_and_undo_each_other(size):
    x, deep = normal(2, 8, 12, 3), normal(2, 2, 3, 48)
    np.testing.assert_array_equal(blocks.to_depth(x, size), to_depth(x, size))
    np.testing.assert_array_equal(blocks.to_space(deep, size), to_space(deep, size))
    np.testing.assert_array_equal(blocks.to_space(blocks.to_depth(x, size), size), x)
    np.testing.assert_array_equal(blocks.to_depth(blocks.to_space(deep, size), size), deep)


def test_a_block_by_hand():
    """Four pixels of two channels: rows first, channels last."""
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(blocks.to_depth(x, 2), np.arange(8.0).reshape(1, 1, 1, 8))
