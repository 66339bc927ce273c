"""Hashed noise: numbers by plain Python, uniform alone and in pairs, within a draw and between keys."""

import jax
import numpy as np
import pytest
from scipy import stats

from wmjax.ops import noise

SHAPE = (64, 16, 64, 3)  # a few images
LAGS = (1, 2, 3, 192, 3072, 65_536)  # channels, pixels, rows, images, and where 16 bits of the counter repeat
KEYS = jax.random.split(jax.random.key(0), 8)
DRAWS = [np.asarray(jax.jit(noise.uniform, static_argnums=1)(key, SHAPE)).ravel() for key in KEYS]


def by_hand(words, place):
    bits = (place * 0x9E3779B9 + words[0]) % 2**32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * factor % 2**32 ^ words[1]
    return ((bits ^ (bits >> 16)) >> 8) / 2**24


def p_of_pairs(a, b):
    """p of a chi-square test that a and b fill 16 x 16 equal cells evenly."""
    return stats.chisquare(np.histogram2d(a, b, 16, ((0, 1), (0, 1)))[0].ravel()).pvalue


def test_the_numbers_by_plain_python():
    words = [int(word) for word in jax.random.bits(KEYS[0], (2,))]
    for place in (0, 1, 2, 12_345, DRAWS[0].size - 1):
        assert DRAWS[0][place] == by_hand(words, place)


def test_uniform_by_high_and_by_low_bits():
    for draw in DRAWS:
        assert 0 <= draw.min() < 1e-4 and 1 - 1e-4 < draw.max() < 1 and draw.dtype == np.float32
        for scale in (1, 256, 65_536):
            counts = np.bincount((draw.astype(np.float64) * scale % 1 * 256).astype(int), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("lag", LAGS)
def test_neighbours_are_independent(lag):
    for draw in DRAWS:
        assert p_of_pairs(draw[:-lag], draw[lag:]) > 1e-4


def test_draws_of_different_keys_are_independent():
    for other in DRAWS[1:]:
        assert p_of_pairs(DRAWS[0], other) > 1e-4
        assert p_of_pairs(DRAWS[0][:-1], other[1:]) > 1e-4


def test_consecutive_keys_and_members_draw_like_single_ones():
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), np.arange(3))
    together = np.asarray(jax.vmap(lambda key: noise.uniform(key, (5, 7)))(keys))
    for key, rows in zip(keys, together, strict=True):
        np.testing.assert_array_equal(rows, noise.uniform(key, (5, 7)))
    assert len(np.unique(together)) == 3 * 35
