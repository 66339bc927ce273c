"""Playing episodes: the host side of collection and evaluation.

Parameters, keys and carries have a leading axis of members [S]: independent agents that act in one dispatch (S = 1 for
a single run). The rows of an environment pool are theirs in turn: E rows of member 0, E rows of member 1, ...
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wmjax import backend
from wmjax.envs import VecEnv
from wmjax.run import processes
from wmjax.run.members import by_member
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Actor, Array, Params, State, Step


class Player(NamedTuple):
    """An Actor for S members of E environment rows each, compiled."""

    begin: Callable[..., Any]  # (params [S, ...]) -> carry [S, E, ...]
    act: Callable[..., tuple[Any, Any, Any]]
    # (params [S, ...], keys [S], t, carry, step [S, E, ...]) -> (carry, action [S, E, A], extras [S, E, ...]); the
    # carry is donated
    sharding: Any  # of everything with leading axes [S, E]; None: the default device


def make_player(
    actor: Actor, rows: int, *, explore: bool, sharding: Any = None, keep: Callable[[Any], Any] = lambda extras: ()
) -> Player:
    """A Player. t counts decisions and makes their keys.

    Args: rows: E; keep: what of the actor's extras is returned, by default nothing.
    """

    def begin(params: Params) -> State:
        return actor.initial(params, rows)

    def act(params: Params, key: Array, t: Array, carry: State, step: Step) -> tuple[State, Array, Any]:
        carry, action, extras = actor.act(params, jax.random.fold_in(key, t), carry, step, explore)
        return carry, action, keep(extras)

    begin = jax.jit(jax.vmap(begin), out_shardings=sharding)
    act = jax.jit(
        jax.vmap(act, (0, 0, None, 0, 0)),
        donate_argnums=3,
        out_shardings=sharding,
        compiler_options=backend.acting_options(),
    )
    return Player(begin, act, sharding)


def decisions(
    env: VecEnv, player: Player, params: Params, keys: Array, stopwatch: Stopwatch, step: Step, carry: State
) -> Iterator[tuple[Step, State, Any]]:
    """Plays on for ever from `step`, the env's current Step [S * E], and the actor's carry there, which is donated.

    Args: as in `play_episodes`. Counts "env", "copy" and "act".
    Yields: (the Step that follows, the carry there, the extras of the action between them).
    Raises: Stopped before the next decision, when a signal asks the run to end.
    """
    for t in itertools.count():
        processes.check()
        with stopwatch("copy"):
            on_device = processes.to_devices(by_member(step, len(keys)), player.sharding)
        with stopwatch("act"):
            carry, action, extras = player.act(params, keys, np.int32(t), carry, on_device)
            action = processes.from_devices(action, axis=1)
        with stopwatch("env"):
            step = env.step(action.reshape(-1, *action.shape[2:]))
        yield step, carry, extras


def arrivals(
    env: VecEnv, player: Player, params: Params, keys: Array, stopwatch: Stopwatch, step: Step
) -> Iterator[Step]:
    """As `decisions`, from where the actor remembers nothing; yields the Steps alone."""
    playing = decisions(env, player, params, keys, stopwatch, step, player.begin(params))
    return (arrival for arrival, _, _ in playing)


def play_episodes(
    env: VecEnv, player: Player, params: Params, keys: Array, stopwatch: Stopwatch
) -> tuple[Step, np.ndarray]:
    """One new episode in every environment row.

    Args:
      env: VecEnv of S * E rows, or of this process's share of each member's; player: Player; params: with a leading
      axis [S], np.zeros(S) of an actor that takes none; keys: [S]; stopwatch: a Stopwatch.
    Returns:
      (steps, returns): Step [T, S * E, ...] of numpy arrays, from the first row to the last; returns float64 [S * E],
      the sum of each row's rewards. A row that ends before the others begins another episode, which does not count.
    """
    with stopwatch("env"):
        first = env.reset()
    steps, tally = [first], Tally.of(first)
    playing = arrivals(env, player, params, keys, stopwatch, first)
    while not processes.everywhere(bool(tally.over.all())):
        steps.append(next(playing))
        tally = tally.after(steps[-1])
    whole = processes.whole_rows((stack(steps), tally.returns[None]), len(keys), axis=1)
    return whole[0], whole[1][0]


class Tally(NamedTuple):
    """Returns of each row's present episode, until it is over."""

    returns: np.ndarray  # float64 [rows]
    over: np.ndarray  # bool [rows]

    @classmethod
    def of(cls, step: Step) -> "Tally":
        """Of an episode's first Step."""
        return cls(np.zeros(len(step.reward)), np.zeros(len(step.reward), bool))

    def after(self, step: Step) -> "Tally":
        """With one more Step; what comes after the end does not count."""
        return Tally(self.returns + np.where(self.over, 0.0, step.reward), self.over | step.is_last)


def play_returns(
    env: VecEnv,
    player: Player,
    params: Params,
    keys: Array,
    stopwatch: Stopwatch,
    film: int,
    rows: slice = slice(None),
) -> tuple[np.ndarray, Step]:
    """As `play_episodes`, for long episodes: keeps the first `film` steps alone, of all rows or of some.

    Args: rows: those of every process.
    Returns: (returns float64 [S * E], Step [up to film, rows, ...]).
    """
    with stopwatch("env"):
        first = env.reset()
    keep = lambda step: jax.tree.map(lambda x: np.array(x[rows]), step)  # a copy: a view would hold all rows
    kept, tally = [keep(first)], Tally.of(first)
    playing = arrivals(env, player, params, keys, stopwatch, first)
    while not processes.everywhere(bool(tally.over.all())):
        step = next(playing)
        kept += [keep(step)] if len(kept) < film else []
        tally = tally.after(step)
    whole = processes.whole_rows((tally.returns[None], stack(kept)), len(keys), axis=1)
    return whole[0][0], whole[1]


class Played(NamedTuple):
    """What `play_steps` returns."""

    steps: Step  # [count, S * E, ...] of numpy arrays: the arrivals
    carry: Any  # [S, E, ...] on the device: the actor's at the last of them, for the next call
    extras: Any  # [count, S, E, ...] on the device: what the player keeps, of the actions that led to the arrivals


def play_steps(
    env: VecEnv,
    player: Player,
    params: Params,
    keys: Array,
    stopwatch: Stopwatch,
    *,
    step: Step,
    carry: State,
    count: int,
) -> Played:
    """`count` more Steps from the env's current one: episodes go on where they are and follow each other.

    Args: as in `play_episodes`, but keys that no call before had, since t begins again at 0; step: the env's current
      one; carry: the actor's there, of the call before or of `player.begin`; it is donated.
    """
    playing, steps, extras = decisions(env, player, params, keys, stopwatch, step, carry), [], []
    for _ in range(count):
        step, carry, kept = next(playing)
        steps.append(step)
        extras.append(kept)
    return Played(stack(steps), carry, jax.tree.map(lambda *rows: jnp.stack(rows), *extras))


def padded(steps: Step, length: int) -> Step:
    """Step [T, ...] of numpy arrays with its last row repeated up to `length` >= T rows."""
    more = length - len(steps.reward)
    return jax.tree.map(lambda x: np.concatenate([x, x[-1:].repeat(more, axis=0)]), steps)


def stack(steps: Sequence[Step]) -> Step:
    """A list of T steps [E] -> Step [T, E, ...]."""
    return jax.tree.map(lambda *rows: np.stack(rows), *steps)
