"""Batched environments behind one door: `make(name, num_envs, seed, **options) -> VecEnv`.

A name is "family:task". What a family accepts as options is written in its module:

    dmc         every dm_control suite task by its dm_control name, "dmc:cheetah_run"     `wmjax/envs/dmc.py`
    atari       every game that envpool knows by its gym name, "atari:MsPacman"           `wmjax/envs/atari.py`
    ball        "ball:diffusing" and "ball:drifting", a bouncing ball                     `wmjax/envs/bouncing_ball.py`
    minipacman  five games in one small maze, "minipacman:hunt"                           `wmjax/envs/minipacman.py`
    physics     the seven tasks of PlaNet as MuJoCo's own state, "physics:cheetah_run"    `wmjax/envs/physics.py`
    gym         an id of gymnasium's registry, "gym:CarRacing-v3"                         `wmjax/envs/own.py`
    py          a function of your own, "py:my_package.module:make_env"                   `wmjax/envs/own.py`
    fake        "fake:counter" and "fake:terminating", tiny and exact, for tests          `wmjax/envs/fake.py`

`make_jax` makes those that are pure JAX as functions to be stepped inside jit: ball, minipacman, and a function of your
own that returns a `JaxEnv`.

`adapt` wraps a user's own gymnasium or dm_env environments (`wmjax/envs/adapter.py`), `pad` those whose actions are
shorter than the agent's (`wmjax/envs/padded.py`).

Life of one row, for an episode of n decisions (rows of an episode: n + 1):

    reset() ->  is_first   obs_0, reward 0,   discount 1, prev_action 0
    step(a) ->             obs_1, reward r_1, discount 1, prev_action a
    ...
    step(a) ->  is_last    obs_n, reward r_n, discount 0 if the episode truly terminated, 1 at a time limit
    step(-) ->  is_first   the next episode's obs_0; the action given for this row is ignored
"""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from wmjax.envs.adapter import adapt
from wmjax.envs.check import nearest
from wmjax.envs.padded import pad
from wmjax.envs.seeds import row_seeds
from wmjax.types import EnvSpec, JaxEnv, Step, UsageError

__all__ = ["VecEnv", "adapt", "make", "make_jax", "pad"]

# family -> function (task, row seeds, options) -> VecEnv; imported when asked for: importing this package costs nothing
FAMILIES = dict(
    dmc="dmc.make",
    atari="atari.make",
    ball="bouncing_ball.make",
    minipacman="minipacman.make",
    physics="physics.make",
    gym="own.make_gym",
    py="own.make_py",
    fake="fake.make",
)
# family -> function (task, options) -> JaxEnv, or None where this task is not pure JAX
JAX_FAMILIES = dict(ball="bouncing_ball.make_env", minipacman="minipacman.make_env", py="own.make_env")


class VecEnv(Protocol):
    """E environments stepped together. Every array of a Step is a fresh numpy array with a leading axis [E]."""

    spec: EnvSpec

    def reset(self) -> Step:
        """Begins a new episode in every row."""

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision in every row; rows whose last Step was `is_last` begin their next episode instead.

        Args:
            action: float32 [E, A] in [low, high] (values outside are clipped), or int32 [E] when discrete.

        Raises:
            UsageError: wrong shape, or called before `reset`.
            NonFiniteError: a NaN or an infinity among the actions.
        """

    def snapshot(self) -> dict[str, Any]:
        """Returns a small dict of numpy arrays and ints from which `restore` rebuilds the present state."""

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot taken from an environment made with the same arguments.

        Returns:
            The Step that was current at the snapshot, bit for bit; everything that follows is equal too.

        Raises:
            UsageError: the snapshot is of a differently made environment.
        """

    def close(self) -> None:
        """Frees what the environments hold."""


def make(name: str, num_envs: int, seed: int, *, purpose: str = "train", first_row: int = 0, **options: Any) -> VecEnv:
    """Makes `num_envs` environments stepped together.

    Args:
        name: "family:task", for example "dmc:cheetah_run".
        num_envs: rows E, 1 to 1024.
        seed: 0 to 2**31 - 1. The same seed, purpose and actions give the same steps.
        purpose: train, evaluation or test. Pools share no environment where seed or purpose differ (`envs/seeds.py`).
        first_row: the number of the first of them, where these are a share of a larger pool's rows.
        options: the family's own, see its module.

    Raises:
        UsageError: unknown family, task or option, or a value of the wrong type or range; one line, with the nearest
            names.
    """
    family, task = _split(name)
    return _function(FAMILIES[family])(task, row_seeds(seed, num_envs, purpose, first_row), options)


def make_jax(name: str, **options: Any) -> JaxEnv | None:
    """Makes an environment in pure JAX, or returns None where it is not.

    Args:
        name, options: as of `make`.

    Raises:
        UsageError: as `make`, of environments in pure JAX.
    """
    family, task = _split(name)
    return _function(JAX_FAMILIES[family])(task, options) if family in JAX_FAMILIES else None


def _split(name: str) -> tuple[str, str]:
    """(family, task) of a name."""
    family, colon, task = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon or family not in FAMILIES:
        close = nearest(family, list(FAMILIES))[:1]
        hint = f" Did you mean {close[0]}:{task}?" if close and colon else ""
        raise UsageError(f"unknown environment {name!r}.{hint} Names are family:task; families: {', '.join(FAMILIES)}.")
    return family, task


def _function(path: str) -> Callable[..., Any]:
    """The function of "module.function" in this package."""
    module, _, function = path.partition(".")
    return getattr(importlib.import_module(f"wmjax.envs.{module}"), function)
