"""Scores of several runs on several tasks as one number each, with its uncertainty (Agarwal et al. 2021).

scores: a list with one array [..., seeds] for every task, normalised so that tasks may be averaged. Tasks may have
different numbers of seeds.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2_000


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """[..., N] -> [...]: the mean without the lowest and the highest quarter, N // 4 values each."""
    values = np.sort(values, axis=-1)
    cut = values.shape[-1] // 4
    return values[..., cut : values.shape[-1] - cut].mean(-1)


def half_interval(values: np.ndarray) -> np.ndarray:
    """[N, ...] -> [...]: how far the 95% confidence interval reaches from the mean of N runs (Student's t), N > 1."""
    from scipy import stats  # jax's own requirement; here for its half second

    return stats.t.ppf(0.975, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))


def with_interval(values: Sequence[float] | np.ndarray, digits: int) -> str:
    """Mean and 95% interval of N numbers as text, with so many digits after the point; of one number that alone."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    low, high = (np.mean(values) + sign * half_interval(np.asarray(values)) for sign in (-1, 1))
    return f"{mean} ({low:.{digits}f} to {high:.{digits}f})"


def pearson(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Pearson's correlation of two arrays [N], N > 2, with its 95% interval by Fisher's z: (rho, low, high).

    nan where all values of an array are equal. The interval of three pairs is all of (-1, 1).
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan, np.nan
    rho = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    if len(x) == 3 or abs(rho) == 1:
        return (rho, -1.0, 1.0) if len(x) == 3 else (rho, rho, rho)
    half = 1.959964 / np.sqrt(len(x) - 3)
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    return rho, float(low), float(high)


def significant_correlation(count: int) -> float:
    """The least |rho| of `count` > 2 independent pairs that differs from 0 at 5% (Student's t): 0.878 of five."""
    from scipy import stats

    t = stats.t.ppf(0.975, count - 2)
    return float(t / np.sqrt(count - 2 + t * t))


def aggregates(scores: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Mean and median over tasks of each task's mean over seeds, and the interquartile mean over all runs of all tasks.

    Returns: dict of mean, median and iqm, [...] each. In the iqm a task with more seeds weighs more.
    """
    means = np.stack([runs.mean(-1) for runs in scores], axis=-1)
    iqm = interquartile_mean(np.concatenate(scores, axis=-1))
    return dict(mean=means.mean(-1), median=np.median(means, axis=-1), iqm=iqm)


def intervals(scores: Sequence[np.ndarray], resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """Stratified bootstrap: 95% intervals (percentiles) of `aggregates` when seeds are drawn anew within each task.

    Args: scores: one array [seeds] for every task. A task with one seed is taken as known, and adds no width.
    Returns: dict of mean, median and iqm, (low, high) each; the same at every call.
    """
    rng = np.random.default_rng(0)
    drawn = [runs[rng.integers(0, len(runs), (resamples, len(runs)))] for runs in scores]  # [resamples, seeds]
    found = aggregates(drawn)
    return {name: tuple(np.percentile(values, [2.5, 97.5])) for name, values in found.items()}
