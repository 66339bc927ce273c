"""Rewards of recorded episodes beside those that a model predicts open loop, from every state that has a horizon ahead.

A window begins at the state t, reached by filtering the episode up to t, and has the actions and rewards of
t + 1 ... t + H:

    error       of a window: mean squared error over its H rewards; of a set: the median and the mean over windows
    r2_horizon  share of the variance of the windows' sums of rewards that is explained
    r2_posterior  the same of the rewards of t + 1 alone, where an RSSM has seen the image of t + 1
    optimism    mean of predicted - true over the rewards that truly are at or above a limit
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wmjax import imagine
from wmjax.ops.actions import model_action
from wmjax.ops.axes import time_first
from wmjax.run.collect import padded
from wmjax.types import ActionSpec, Array, Params, Step, WorldModel

PAST = 4  # rewards that a limit on the start of a window looks at
BINS = 50  # of histograms


class Windows(NamedTuple):
    """Windows of all episodes of a set, in order."""

    true: np.ndarray  # float32 [N, H]
    predicted: np.ndarray  # float32 [N, H]
    seen: np.ndarray | None  # float32 [N], of posterior states; None of a model that tells whole sequences of rewards


def make_predict(
    model: WorldModel, action_spec: ActionSpec, horizon: int, length: int
) -> Callable[[Params, Array, Step], tuple[np.ndarray, np.ndarray | None]]:
    """A function (params, key, numpy Step [T, 1]) -> (predicted [T - H, H], seen [T - H]), as in Windows.

    H < T <= length; every T has the same program, for nothing before a row depends on the padding after it.
    """
    program = jax.jit(functools.partial(predict_rewards, model, action_spec, horizon))

    def predict(params: Params, key: Array, steps: Step) -> tuple[np.ndarray, np.ndarray | None]:
        starts = len(steps.reward) - horizon
        return jax.tree.map(lambda x: x[:starts], jax.device_get(program(params, key, padded(steps, length))))

    return predict


def predict_rewards(
    model: WorldModel, action_spec: ActionSpec, horizon: int, params: Params, key: Array, steps: Step
) -> tuple[Array, Array | None]:
    """The program of `make_predict`: (predicted [T - H, H], seen [T - H] or None), row t of both those of window t."""
    filter_key, open_key = jax.random.split(key)
    actions = model_action(jnp.asarray(steps.prev_action), action_spec)[:, 0]  # [T, A]
    _, states, _ = imagine.filter_steps(model, params, filter_key, jax.tree.map(time_first, steps), action_spec)
    starts = len(actions) - horizon
    seen = imagine.rewards(model, params, states)[0, 1 : 1 + starts] if model.rewards is None else None
    ahead = jnp.stack([actions[1 + h : 1 + h + starts] for h in range(horizon)])  # [H, starts, A]
    begun = jax.tree.map(lambda x: x[0, :starts], states)
    return imagine.predict_rewards(model, params, open_key, begun, ahead)[0].T, seen


def measure(
    predict: Callable, params: Params, key: Array, episodes: Sequence[Step], above: float | None = None
) -> Windows:
    """The Windows of episodes, numpy Step [T, 1] each, with T > H.

    predict: of `make_predict`; above: where given, windows count whose start's last PAST rewards average above it.
    """
    found = []
    for steps in episodes:
        predicted, seen = predict(params, key, steps)
        horizon = predicted.shape[1]
        true = np.lib.stride_tricks.sliding_window_view(steps.reward[1:, 0], horizon)  # [T - H, H]
        which = counted(steps, horizon, above)
        each = Windows(true, predicted, seen)
        found.append(jax.tree.map(lambda x, which=which: x[which], each))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def counted(steps: Step, horizon: int, above: float | None = None) -> np.ndarray:
    """Which states of an episode, Step [T, 1], begin a window: bool [T - H], nothing where it is too short."""
    starts = max(len(steps.reward) - horizon, 0)
    return np.ones(starts, bool) if above is None else recent(steps.reward[:, 0])[:starts] > above


def recent(rewards: np.ndarray) -> np.ndarray:
    """Mean of the last PAST rewards [T] at each time, of fewer at the beginning: [T]."""
    sums = np.cumsum(np.concatenate([np.zeros(PAST), np.float64(rewards)]))
    return (sums[PAST:] - sums[:-PAST]) / np.minimum(np.arange(len(rewards)) + 1, PAST)


def metrics(windows: Windows, limit: float | None = None) -> dict[str, float]:
    """{name: number} of Windows; limit: of the optimism, which is left out where it is None."""
    off = np.float64(windows.predicted) - windows.true
    errors = np.square(off).mean(axis=1)
    found = dict(reward_error_median=float(np.median(errors)), reward_error_mean=float(errors.mean()))
    found["r2_horizon"] = r2(windows.predicted.sum(axis=1), windows.true.sum(axis=1))
    if windows.seen is not None:
        found["r2_posterior"] = r2(windows.seen, windows.true[:, 0])
    if limit is not None:
        high = off[windows.true >= limit]
        found["optimism"] = float(high.mean()) if len(high) else float("nan")
    return found


def r2(predicted: np.ndarray, true: np.ndarray) -> float:
    """Share of the variance of arrays [N] that is explained: 1 when equal, 0 for the mean; nan if there is none."""
    return float(1 - np.mean((predicted - true) ** 2) / np.var(true)) if np.var(true) else float("nan")


def histograms(sets: Mapping[str, Windows]) -> dict[str, np.ndarray]:
    """Counts of (true, predicted) rewards of all windows: {"edges": [BINS + 1], name: int64 [BINS, BINS], ...}.

    One grid for all sets, from their lowest to their highest true reward; predictions beyond it are in the outermost
    bins. sets: Windows by name.
    """
    true = np.concatenate([windows.true.ravel() for windows in sets.values()])
    low, high = float(true.min()), float(true.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = {}
    for name, windows in sets.items():
        predicted = np.clip(windows.predicted, edges[0], edges[-1])
        counts[name] = np.histogram2d(windows.true.ravel(), predicted.ravel(), [edges, edges])[0].astype(np.int64)
    return dict(edges=edges) | counts
