"""Acting and learning in turn: one compiled loop of environments in pure JAX, or a loop around those of the host."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.i2a.agent import Made, Settings, make_env
from wmjax.agents import i2a
from wmjax.run import devices, pools, processes, unroll
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Array, JaxEnv, LearnerState, Params

DISPATCHED = dict(compiled=50, stepped=10)  # updates of one dispatch at most: seconds on two cores


class Loop(NamedTuple):
    """How a run goes on, whatever its environments are.

    advance returns the learner's state, where the rows are, metrics [updates] and Played [updates * n, E], all numpy.
    """

    begin: Callable[..., unroll.Playing]  # (params of the agent, key)
    advance: Callable[..., tuple[LearnerState, unroll.Playing, dict, "Played"]]
    # (state, playing, keys [updates], Stopwatch)
    snapshot: Callable[[], Any]  # of environments that are stepped from the host
    restore: Callable[[Any], Any]
    dispatched: int  # updates of one `advance` at most


class Played(NamedTuple):
    """Arrivals, time first."""

    reward: Any  # float32 [T, E]
    is_last: Any  # bool [T, E]


def make_loop(settings: Settings, env: JaxEnv | None, made: Made, model: Params, mesh: Mesh) -> Loop:
    """The Loop of a run, its rows split over the mesh. model: parameters of the frozen model."""
    return compiled_loop(settings, env, made, model, mesh) if env else stepped_loop(settings, made, model, mesh)


def compiled_loop(settings: Settings, env: JaxEnv, made: Made, model: Params, mesh: Mesh) -> Loop:
    """The Loop of environments in pure JAX: acting and learning are one program."""
    train, whole = settings.train, devices.replicated(mesh)
    act = functools.partial(unroll.unroll, env, made.player, count=train.decisions)

    def begin_rows(rows: int, model: Params, params: Params, key: Array) -> unroll.Playing:
        return unroll.begin(env, made.player, dict(model=model, agent=params), key, rows)

    def shapes(rows: int) -> unroll.Playing:
        key = jax.random.key(0)
        params = jax.eval_shape(made.learner.init, key).params
        return jax.eval_shape(functools.partial(begin_rows, rows), model, params, key)

    def advance(model: Params, state: LearnerState, playing: unroll.Playing, keys: Array) -> Any:
        def update(carry: Any, key: Array) -> Any:
            state, playing = carry
            state, playing, metrics, steps = i2a.act_and_learn(act, made.learner.update, model, state, playing, key)
            return (state, playing), (metrics, Played(steps.reward[1:], steps.is_last[1:]))

        (state, playing), (metrics, played) = jax.lax.scan(update, (state, playing), keys)
        return state, playing, metrics, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), played)

    shardings = devices.split_rows(mesh, shapes)
    begin = jax.jit(functools.partial(begin_rows, train.rows), out_shardings=shardings)
    advance = jax.jit(advance, out_shardings=(whole, shardings, whole, whole))

    def run(state: LearnerState, playing: unroll.Playing, keys: Array, stopwatch: Stopwatch) -> Any:
        with stopwatch("train"), devices.no_transfers():
            state, playing, *results = jax.block_until_ready(advance(model, state, playing, keys))
        return state, playing, *jax.device_get(results)

    return Loop(
        lambda params, key: begin(model, params, key), run, lambda: {}, lambda snapshot: None, DISPATCHED["compiled"]
    )


def stepped_loop(settings: Settings, made: Made, model: Params, mesh: Mesh) -> Loop:
    """The Loop of environments that are stepped from the host; raises Stopped where a signal comes."""
    train, whole = settings.train, devices.replicated(mesh)
    env = make_env(settings, train.rows, "train")
    first = env.reset()
    agent = jax.eval_shape(made.learner.init, jax.random.key(0)).params
    player = unroll.compile_player(made.player, dict(model=model, agent=agent), first, mesh)
    update = jax.jit(made.learner.update, out_shardings=whole)

    def begin(params: Params, key: Array) -> unroll.Playing:
        return player.begin_at(dict(model=model, agent=params), key, processes.to_devices(first, player.sharding))

    def advance(state: LearnerState, playing: unroll.Playing, keys: Array, stopwatch: Stopwatch) -> Any:
        def learn(state: LearnerState, key: Array, batch: i2a.Unroll) -> tuple[LearnerState, dict]:
            with stopwatch("train"):
                state, metrics = update(state, key, batch)
                return state, jax.device_get(metrics)

        act = functools.partial(unroll.from_host, env, player, count=train.decisions, stopwatch=stopwatch)
        losses, played = [], []
        for key in keys:
            state, playing, metrics, steps = i2a.act_and_learn(act, learn, model, state, playing, key)
            losses.append(metrics)
            played.append(jax.device_get(jax.device_put(Played(steps.reward[1:], steps.is_last[1:]), whole)))
        metrics = jax.tree.map(lambda *rows: np.stack(rows), *losses)
        return state, playing, metrics, Played(*(np.concatenate(x) for x in zip(*played, strict=True)))

    def restore(snapshot: Any) -> None:
        pools.restore(env, snapshot, train.rows)

    return Loop(begin, advance, lambda: pools.snapshot(env), restore, DISPATCHED["stepped"])


class EpisodeTotals(NamedTuple):
    """Episodes under way: what each of E rows has so far."""

    returns: np.ndarray  # float64 [E]
    lengths: np.ndarray  # int64 [E], decisions

    @classmethod
    def of(cls, rows: int) -> "EpisodeTotals":
        """Of episodes that begin."""
        return cls(np.zeros(rows), np.zeros(rows, int))

    def after(self, played: Played, began: np.ndarray) -> tuple["EpisodeTotals", list[float], list[int], np.ndarray]:
        """(totals, returns and lengths of the episodes that ended, rows that begin one next) after Played [T, E].

        Args: began: bool [E], rows whose first arrival begins an episode.
        """
        returns, lengths = self.returns.copy(), self.lengths.copy()
        ended: tuple[list[float], list[int]] = ([], [])
        for reward, is_last in zip(played.reward, played.is_last, strict=True):
            returns, lengths = returns + reward, lengths + ~began
            for row in np.flatnonzero(is_last):
                ended[0].append(float(returns[row]))
                ended[1].append(int(lengths[row]))
            returns[is_last], lengths[is_last] = 0.0, 0
            began = is_last
        return EpisodeTotals(returns, lengths), *ended, began


def decisions(played: Played, began: np.ndarray) -> int:
    """How many arrivals of Played [T, E] followed a decision. began: as of `EpisodeTotals.after`."""
    begins = np.concatenate([began[None], played.is_last[:-1]])
    return int((~begins).sum())


def line(partial: dict[str, Any]) -> dict[str, float]:
    """Metrics since the newest line: mean losses of the updates, mean return and length of the episodes that ended."""
    row = {f"train/{name}": float(x.mean()) for name, x in partial["losses"].items()}
    if partial["returns"]:
        row |= {"collect/return": float(np.mean(partial["returns"]))}
        row |= {"collect/episode_length": float(np.mean(partial["lengths"]))}
    return row
