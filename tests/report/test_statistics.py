"""Aggregates of scores over tasks and seeds, by hand, against scipy, and their bootstrap intervals."""

import numpy as np
import pytest
from scipy import stats

from wmjax.report.statistics import (
    aggregates,
    half_interval,
    interquartile_mean,
    intervals,
    pearson,
    significant_correlation,
    with_interval,
)


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, -50.0])) == 2  # 5 // 4 = 1 from each end
    assert interquartile_mean(np.array([4.0, 0.0, 2.0])) == 2  # three values: nothing is cut
    np.testing.assert_array_equal(interquartile_mean(np.array([[0.0, 1, 3, 9], [9, 9, 5, 1]])), [2, 7])


@pytest.mark.parametrize("count", [1, 4, 7, 36, 180])
def test_interquartile_mean_is_scipys(count):
    values = np.random.default_rng(count).normal(size=count)
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25), rtol=1e-12)


def test_interval_of_a_mean_by_hand():
    """Student's t with two degrees of freedom reaches 4.3027 standard errors."""
    values = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(half_interval(values), [4.3027 / np.sqrt(3), 0], rtol=1e-4)
    assert with_interval([1.0, 2.0, 3.0], 2) == "2.00 (-0.48 to 4.48)" and with_interval([2.04], 1) == "2.0"


def test_aggregates_by_hand():
    found = aggregates([np.array([0.0, 2.0]), np.array([10.0]), np.array([3.0, 3.0, 6.0])])
    assert found["mean"] == pytest.approx((1 + 10 + 4) / 3) and found["median"] == 4
    assert found["iqm"] == pytest.approx((2 + 3 + 3 + 6) / 4)  # of 0 2 3 3 6 10


def test_intervals_collapse_for_equal_seeds():
    games = [np.full(5, 0.2), np.full(5, 0.7), np.full(3, 0.3)]
    values, found = aggregates(games), intervals(games)
    for name, (low, high) in found.items():
        assert low == pytest.approx(values[name]) and high == pytest.approx(values[name]), name


def test_intervals_hold_the_value_and_are_stratified():
    rng = np.random.default_rng(0)
    games = [centre + 0.1 * rng.normal(size=5) for centre in (0.0, 1.0, 50.0)]
    values, found = aggregates(games), intervals(games)
    for name, (low, high) in found.items():
        assert low < values[name] < high, name
    low, high = found["mean"]  # games are never left out, so their distance does not widen it
    assert high - low < 0.2
    assert intervals(games) == found  # a fixed seed


def test_interval_is_that_of_the_normal_distribution():
    scores = np.random.default_rng(0).normal(size=400)
    low, high = intervals([scores], resamples=4_000)["mean"]
    half = 1.96 * scores.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], [scores.mean() - half, scores.mean() + half], atol=0.01)


@pytest.mark.parametrize("count", [5, 12, 40])
def test_correlation_and_its_interval_are_scipys(count):
    x, noise = np.random.default_rng(count).normal(size=(2, count))
    found = stats.pearsonr(x, x + noise)
    interval = found.confidence_interval(0.95)
    np.testing.assert_allclose(pearson(x, x + noise), (found.statistic, interval.low, interval.high), rtol=1e-6)


def test_correlation_at_the_edges():
    assert np.isnan(pearson([1, 1, 1, 1], [1, 2, 3, 4])).all()
    assert pearson([1, 2, 4], [1, 2, 3])[1:] == (-1, 1)
    assert pearson([1, 2, 3, 4], [2, 4, 6, 8]) == pytest.approx((1, 1, 1))


def test_five_pairs_tell_little():
    """A correlation of just this size has a p-value of 5%."""
    assert significant_correlation(5) == pytest.approx(0.878, abs=1e-3)
    assert stats.t.sf(0.878 * np.sqrt(3 / (1 - 0.878**2)), 3) * 2 == pytest.approx(0.05, abs=1e-3)
