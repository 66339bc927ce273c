"""Playing episodes: the host side of collection and evaluation."""

import jax
import numpy as np

from wmjax.types import Step


def make_act(actor, *, explore):
    """The actor's step as one dispatch: act(params, key, t, carry, step) -> (carry, action, extras).

    The carry is donated. t counts the decisions of an episode.
    """

    def act(params, key, t, carry, step):
        return actor.act(params, jax.random.fold_in(key, t), carry, step, explore)

    return jax.jit(act, donate_argnums=3)


def play_episodes(env, actor, act, params, key, timers):
    """One new episode in every environment row.

    Args:
      env: VecEnv; actor: Actor; act: from `make_act`; timers: run.timers.Timers, counts "env", "copy" and "act".
    Returns:
      (steps, returns): Step [T, E, ...] of numpy arrays, from the first row to the last; returns float64 [E], the sum
      of each row's rewards. A row that ends before the others begins another episode, whose rewards do not count.
    """
    with timers("env"):
        step = env.reset()
    carry = actor.initial(params, step.reward.shape[0])
    steps, over = [step], np.zeros(step.reward.shape[0], bool)
    returns = np.zeros(step.reward.shape[0])
    while not over.all():
        with timers("copy"):
            on_device = jax.device_put(step)
        with timers("act"):
            carry, action, _ = act(params, key, np.int32(len(steps) - 1), carry, on_device)
            action = np.asarray(action)
        with timers("env"):
            step = env.step(action)
        steps.append(step)
        returns += np.where(over, 0.0, step.reward)
        over |= step.is_last
    return stack(steps), returns


def stack(steps):
    """A list of T steps [E] -> Step [T, E, ...]."""
    return Step(*(np.stack(column) for column in zip(*(vars(step).values() for step in steps), strict=True)))
