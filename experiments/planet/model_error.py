"""How a learned model ranks the planner's candidates beside the true simulator, from the same states.

A planner needs no true rewards of its model, only that the best candidates be among those it takes for the best. From
states along an episode the same random action sequences are scored by both, horizon by horizon:

    correlation   rank correlation (Spearman) over candidates of the predicted with the true sum of rewards
    regret        of the elites: how much less they truly earn than the truly best of as many, as a share of what those
                  earn above the mean candidate. 0: none; 1: elites are no better than chance

It needs episodes that show states beside images: "physics:<task>" with observe=image+state.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.planet.agent import Settings
from wmjax import envs, imagine
from wmjax.ops.axes import time_first
from wmjax.report import plots
from wmjax.report.artifacts import Picture
from wmjax.storage.files import write_whole
from wmjax.types import ActionSpec, Array, Params, State, Step, UsageError, WorldModel

STARTS = 8  # states of an episode
PICTURE = Picture(
    "model_error_*.png",
    "Model error while planning",
    "From states of an episode the same random action sequences are scored by the model and by the simulator, up to "
    "each step of the horizon. Correlation: of their ranks, 1 is best. Regret: how much less the model's best "
    "sequences truly earn than the truly best, 0 is best, 1 no better than chance.",
)


def make_measures(settings: Settings, model: WorldModel, action_spec: ActionSpec) -> dict[str, Callable | None]:
    """{task: `make_model_error` for the run's planner}, or {task: None} where config.evaluation.model_error is off.

    Raises: UsageError unless every task shows its simulator's state beside the image.
    """
    if not settings.evaluation.model_error:
        return dict.fromkeys(settings.tasks)
    measures: dict[str, Callable | None] = {}
    for task, players in settings.tasks.items():
        name = players[0].task
        if not name.startswith("physics:") or settings.env.get("observe") != "image+state":
            raise UsageError(
                f"config.evaluation.model_error=True: {name} does not show its state: take physics:<task> with "
                "config.env.observe=image+state"
            )
        env: Any = envs.make(name, 1, 0, **settings.env)
        planner = settings.planner
        size = dict(horizon=planner.horizon, candidates=planner.candidates, elites=planner.elites)
        measures[task] = make_model_error(model, action_spec, env.advance, **size)
    return measures


def make_model_error(
    model: WorldModel, action_spec: ActionSpec, advance: Callable, *, horizon: int, candidates: int, elites: int
) -> Callable[[Params, Array, Step], dict[str, np.ndarray]]:
    """A function (params, key, numpy Step [T, 1]) -> dict of correlation and regret, float64 [H] each.

    Means over STARTS states of the episode that are spread evenly over it; a state whose candidates all earn the same
    counts in neither, and where none is left both are nan.

    Args:
      model: the WorldModel asked; advance: of a `wmjax.envs.physics.PhysicsVecEnv`; the rest as of the planner.
    """

    @jax.jit
    def predict(params: Params, key: Array, steps: Step, starts: Array, sequences: Array) -> Array:
        filter_key, *keys = jax.random.split(key, len(starts) + 1)
        _, states, _ = imagine.filter_steps(model, params, filter_key, jax.tree.map(time_first, steps), action_spec)
        states = jax.tree.map(lambda x: x[0, starts], states)  # [STARTS, ...]
        score = functools.partial(predict_from, params)
        return jax.lax.map(lambda each: score(*each), (jnp.stack(keys), states, sequences))

    def predict_from(params: Params, key: Array, state: State, sequences: Array) -> Array:
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (candidates, *x.shape)), state)
        return imagine.predict_rewards(model, params, key, many, sequences)[0]

    def measure(params: Params, key: Array, steps: Any) -> dict[str, np.ndarray]:
        draw_key, predict_key = jax.random.split(key)
        starts = np.linspace(0, len(steps.reward) - 1, STARTS, endpoint=False).astype(np.int32)
        shape = (STARTS, horizon, candidates, action_spec.size)
        sequences = np.asarray(jnp.clip(jax.random.normal(draw_key, shape), action_spec.low, action_spec.high))
        predicted = np.asarray(predict(params, predict_key, steps, starts, sequences))  # [STARTS, H, N]
        true = []
        for start, each in zip(starts, sequences, strict=True):
            states = np.repeat(steps.obs["state"][start], candidates, axis=0)
            true.append(advance(states, each)[1])
        return ranking(predicted, np.stack(true), elites)

    return measure


def ranking(predicted: np.ndarray, true: np.ndarray, elites: int) -> dict[str, np.ndarray]:
    """dict of correlation and regret, [H] each. predicted, true: rewards [STARTS, H, N] of the same candidates."""
    predicted, true = (np.cumsum(np.float64(x), axis=1) for x in (predicted, true))
    each = [
        [(correlation(*both), regret(*both, elites)) for both in zip(*start, strict=True)]
        for start in zip(predicted, true, strict=True)
    ]
    means = np.ma.masked_invalid(each).mean(axis=0).filled(np.nan)  # [H, 2]
    return dict(correlation=means[:, 0], regret=means[:, 1])


def correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman's rank correlation of arrays [N]; nan where the true ones are all equal, 0 where the predicted are."""
    from scipy import stats  # jax's own requirement; here for its half second

    if np.ptp(true) == 0:
        return np.nan
    if np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(predicted), stats.rankdata(true))[0, 1])


def regret(predicted: np.ndarray, true: np.ndarray, elites: int) -> float:
    """Of taking the `elites` highest of predicted [N] for those of true [N], relative to taking them by chance."""
    kept = true[np.argsort(-predicted, kind="stable")[:elites]].mean()
    best = np.sort(true)[-elites:].mean()
    return float((best - kept) / (best - true.mean())) if best > true.mean() else np.nan


def metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """{name: number} of a measurement for a line of metrics: at the first, the middle and the last step."""
    horizon = len(found["correlation"])
    steps = sorted({1, (horizon + 1) // 2, horizon})
    return {f"model_error/{name}_{step}": float(found[name][step - 1]) for name in found for step in steps}


def draw(path: pathlib.Path, found: Mapping[str, Any]) -> None:
    """Writes a PNG of correlation and regret against the horizon."""
    low = min(-0.1, np.nanmin(found["correlation"], initial=0))
    write_whole(path, plots.lines(found, "horizon", "", (low, 1.05)))
