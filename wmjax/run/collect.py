"""Playing episodes: the host side of collection and evaluation.

Parameters, keys and carries have a leading axis of members [S]: independent agents that act in one dispatch (S = 1 for
a single run). The rows of an environment pool are theirs in turn: E rows of member 0, E rows of member 1, ...
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.run.members import by_member
from wmjax.types import Step


class Player(NamedTuple):
    """An Actor for S members of E environment rows each, compiled."""

    begin: Callable[..., Any]  # (params [S, ...]) -> carry [S, E, ...]
    act: Callable[..., tuple[Any, Any]]
    # (params [S, ...], keys [S], t, carry, step [S, E, ...]) -> (carry, action [S, E, A]); the carry is donated
    place: Any  # sharding of everything with leading axes [S, E]; None: the default device


def make_player(actor, rows, *, explore, place=None):
    """A Player; rows: E. t counts the decisions of an episode and makes its keys."""

    def begin(params):
        return actor.initial(params, rows)

    def act(params, key, t, carry, step):
        carry, action, _ = actor.act(params, jax.random.fold_in(key, t), carry, step, explore)
        return carry, action

    begin = jax.jit(jax.vmap(begin), out_shardings=place)
    act = jax.jit(jax.vmap(act, (0, 0, None, 0, 0)), donate_argnums=3, out_shardings=place)
    return Player(begin, act, place)


def play_episodes(env, player, params, keys, timers):
    """One new episode in every environment row.

    Args:
      env: VecEnv of S * E rows; player: Player; params: with a leading axis [S]; keys: [S]; timers: run.timers.Timers,
      counts "env", "copy" and "act".
    Returns:
      (steps, returns): Step [T, S * E, ...] of numpy arrays, from the first row to the last; returns float64 [S * E],
      the sum of each row's rewards. A row that ends before the others begins another episode, which does not count.
    """
    with timers("env"):
        step = env.reset()
    carry = player.begin(params)
    steps, over = [step], np.zeros(step.reward.shape[0], bool)
    returns = np.zeros(step.reward.shape[0])
    while not over.all():
        with timers("copy"):
            on_device = jax.device_put(by_member(step, len(keys)), player.place)
        with timers("act"):
            carry, action = player.act(params, keys, np.int32(len(steps) - 1), carry, on_device)
            action = np.asarray(action)
        with timers("env"):
            step = env.step(action.reshape(-1, *action.shape[2:]))
        steps.append(step)
        returns += np.where(over, 0.0, step.reward)
        over |= step.is_last
    return stack(steps), returns


def stack(steps):
    """A list of T steps [E] -> Step [T, E, ...]."""
    return Step(*(np.stack(column) for column in zip(*(vars(step).values() for step in steps), strict=True)))
