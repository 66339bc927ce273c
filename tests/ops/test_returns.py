"""Advantages against rows computed by hand, identities and a numpy loop."""

import jax
import numpy as np
import pytest

from wmjax.ops.returns import generalized_advantage

REWARD = np.float32([1, 2, 3])
VALUE = np.float32([1, 2, 4, 8])
HORIZON = 7


def random_sequence(seed=0):
    """reward [H], value [H + 1], discount [H] with an end of the episode in the middle."""
    rng = np.random.default_rng(seed)
    discount = rng.uniform(0.5, 1, HORIZON)
    discount[3] = 0
    draw = rng.normal(size=HORIZON), rng.normal(size=HORIZON + 1), discount
    return [x.astype(np.float32) for x in draw]


@pytest.mark.parametrize(
    ("discount", "advantage"),
    [
        ([0.5, 0.5, 0.5], [1.6875, 2.75, 3]),  # cut: errors 1, 2, 3, the last one with half of the value 8
        ([0.5, 0.5, 0], [1.4375, 1.75, -1]),  # ended: the last error is 3 - 4
        ([0.5, 0, 0.5], [1, 0, 3]),  # ended in the middle: the second error is 2 - 2, nothing of the third comes back
        ([0, 0, 0], [0, 0, -1]),
        ([1, 1, 1], [5.75, 7.5, 7]),  # errors 2, 4, 7
    ],
)
def test_by_hand(discount, advantage):
    result = generalized_advantage(REWARD, VALUE, np.float32(discount), decay=0.5)
    np.testing.assert_array_equal(result, np.float32(advantage))
    assert result.dtype == np.float32


def test_a_cut_counts_the_last_value_and_an_end_does_not():
    cut, ended = np.float32([0.5, 0.5, 0.5]), np.float32([0.5, 0.5, 0])
    other = np.float32([1, 2, 4, 100])
    for discount, differ in [(cut, True), (ended, False)]:
        one, two = (generalized_advantage(REWARD, value, discount, decay=0.5) for value in (VALUE, other))
        assert (one != two).all() if differ else (one == two).all()


def test_equals_a_numpy_loop():
    """Each advantage by itself, forwards: the errors that follow it, weighted by what lies between."""
    reward, value, discount = random_sequence()
    result = generalized_advantage(reward, value, discount, decay=0.9)
    for t in range(HORIZON):
        expected, weight = 0.0, 1.0
        for u in range(t, HORIZON):
            expected += weight * (reward[u] + discount[u] * value[u + 1] - value[u])
            weight *= 0.9 * discount[u]
        np.testing.assert_allclose(result[t], expected, rtol=1e-4, atol=1e-6)


def test_decay_0_is_the_one_step_error():
    reward, value, discount = random_sequence(1)
    result = generalized_advantage(reward, value, discount, decay=0.0)
    np.testing.assert_allclose(result, reward + discount * value[1:] - value[:-1], rtol=1e-6)


def test_decay_1_is_the_return_less_the_value():
    reward, value, discount = random_sequence(2)
    returns = [value[-1]]
    for r, d in zip(reward[::-1], discount[::-1], strict=True):
        returns.insert(0, r + d * returns[0])
    result = generalized_advantage(reward, value, discount, decay=1.0)
    np.testing.assert_allclose(result, np.array(returns[:-1]) - value[:-1], rtol=1e-4, atol=1e-5)


def test_rows_by_vmap():
    rows = [random_sequence(seed) for seed in range(3)]
    batch = [np.stack(column) for column in zip(*rows, strict=True)]
    together = jax.vmap(lambda *row: generalized_advantage(*row, decay=0.9))(*batch)
    for row, result in zip(rows, together, strict=True):
        np.testing.assert_allclose(result, generalized_advantage(*row, decay=0.9), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("reward", "value", "discount"),
    [(3, 3, 3), (3, 4, 2), (2, 4, 3), ((2, 3), (2, 4), (2, 3)), (3, 4, ())],
)
def test_other_shapes_are_refused(reward, value, discount):
    with pytest.raises(AssertionError):
        generalized_advantage(np.ones(reward), np.ones(value), np.ones(discount), decay=0.9)
