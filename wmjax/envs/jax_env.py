"""Environments in pure JAX behind the door of all others: numpy Steps, snapshots, a seed for each row.

A row is an environment of one row, whose n-th call has the n-th key of the row's own seed; so it does not depend on how
many rows there are. Where speed counts, step a `JaxEnv` itself inside jit: see `wmjax.envs.make_jax`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wmjax.envs.check import check_action, check_begun, check_identity, identity_of
from wmjax.types import Array, EnvSpec, JaxEnv, Step, UsageError


def check_env(name: str, env: JaxEnv) -> None:
    """Raises UsageError where the Steps of a JaxEnv are not as its spec says; nothing is computed."""
    rows, spec = 2, env.spec
    if not isinstance(spec, EnvSpec):
        raise UsageError(f"{name}: the spec of a JaxEnv is a {type(spec).__name__}: expected a wmjax.types.EnvSpec.")
    if isinstance(spec.obs, dict) and "image" not in spec.obs:
        raise UsageError(f"{name}: observations hold {', '.join(spec.obs)}: expected the image as image.")
    if len(spec.obs_shape) != 3 or spec.obs_dtype != np.uint8:
        raise UsageError(f"{name}: images are {spec.obs_dtype} {spec.obs_shape}: expected uint8 (X, Y, C).")
    obs = jax.tree.map(lambda x: (rows, *x.shape, np.dtype(x.dtype).name), spec.obs)
    action = (rows, "int32") if spec.action.discrete else (rows, spec.action.size, "float32")
    number, flag = (rows, "float32"), (rows, "bool")
    expected = Step(action, obs, number, number, flag, flag)
    action_like = jax.ShapeDtypeStruct(action[:-1], action[-1])
    state, first = jax.eval_shape(lambda key: env.reset(key, rows), jax.random.key(0))
    after, later = jax.eval_shape(env.step, jax.random.key(0), state, action_like)
    for call, step in (("reset", first), ("step", later)):
        shown = jax.tree.map(lambda x: (*x.shape, x.dtype.name), step)
        for field in Step.__dataclass_fields__:
            if getattr(shown, field) != getattr(expected, field):
                raise UsageError(
                    f"{name}: {call} returns a Step whose {field} is {getattr(shown, field)}: "
                    f"expected {getattr(expected, field)} in {rows} rows."
                )
    if jax.tree.map(_shape, state) != jax.tree.map(_shape, after):
        raise UsageError(f"{name}: the state that step returns is not like that of reset.")


def _shape(x: Array) -> Any:
    return x.shape, x.dtype


@functools.partial(jax.jit, static_argnums=0)
def _reset(reset: Callable[..., Any], seeds: Array, counts: Array) -> Any:
    """(states [E, 1, ...], Step [E]) of every row."""

    def one(seed: Array, count: Array) -> Any:
        return reset(_key(seed, count), 1)

    state, step = jax.vmap(one)(seeds, counts)
    return state, jax.tree.map(lambda x: x[:, 0], step)


@functools.partial(jax.jit, static_argnums=0)
def _step(step: Callable[..., Any], seeds: Array, counts: Array, states: Any, action: Array) -> Any:
    """As `_reset`."""

    def one(seed: Array, count: Array, state: Any, action: Array) -> Any:
        return step(_key(seed, count), state, action[None])

    state, arrival = jax.vmap(one)(seeds, counts, states, action)
    return state, jax.tree.map(lambda x: x[:, 0], arrival)


def _key(seed: Array, count: Array) -> Array:
    return jax.random.fold_in(jax.random.key(seed), count)


class JaxVecEnv:
    """E rows of a JaxEnv; see `wmjax.envs.VecEnv`. Attribute: spec, an EnvSpec."""

    def __init__(self, env: JaxEnv, seeds: list[int], made_of: Any):
        """Makes it; made_of: what tells this environment from others, in snapshots."""
        self.spec, self._env, self._seeds = env.spec, env, np.array(seeds)
        self._identity = identity_of(made_of, seeds)
        self._counts = np.zeros(len(seeds), np.int32)  # calls of `reset` and `step`
        self._state: Any = None
        self._step: Step | None = None

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        self._counts = self._counts + 1
        return self._keep(*_reset(self._env.reset, self._seeds, self._counts))

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision in every row that goes on; begins an episode in the others."""
        check_begun(self._step is not None, "step")
        action = check_action(action, len(self._seeds), self.spec.action)
        self._counts = self._counts + 1
        return self._keep(*_step(self._env.step, self._seeds, self._counts, self._state, action))

    def close(self) -> None:
        """Does nothing."""

    def snapshot(self) -> dict[str, Any]:
        """Returns the whole state: identity (int), counts [E], every array of the state and of the Step by number."""
        check_begun(self._step is not None, "snapshot")
        arrays = {f"array_{i}": np.array(x) for i, x in enumerate(jax.tree.leaves((self._state, self._step)))}
        return {"identity": self._identity, "counts": self._counts.copy()} | arrays

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot."""
        check_identity(snapshot, self._identity)
        self._counts = np.array(snapshot["counts"])
        shapes = jax.eval_shape(functools.partial(_reset, self._env.reset), self._seeds, self._counts)
        leaves, shape_of = jax.tree.flatten(shapes)
        arrays = [np.array(snapshot[f"array_{i}"]) for i in range(len(leaves))]
        return self._keep(*jax.tree.unflatten(shape_of, arrays))

    def _keep(self, state: Any, step: Step) -> Step:
        """Keeps the state and the Step, and returns a copy that its user may write to."""
        self._state, self._step = state, jax.tree.map(np.asarray, step)
        return jax.tree.map(np.array, self._step)
