"""Unrolls: decisions in a row, kept on the device for an on-policy learner, with what the agent saw at each.

Acting in environments in pure JAX is one compiled loop, which may include learning. Other environments are stepped from
the host, and only their arrivals are copied to the device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from wmjax.envs import VecEnv
from wmjax.run import devices, processes
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Array, JaxEnv, Params, Step


class Player(NamedTuple):
    """How an agent plays E rows: it looks at an arrival, then chooses."""

    initial: Callable[..., Any]  # (params, E) -> carry
    look: Callable[..., tuple[Any, Any]]  # (params, key, carry, Step [E]) -> (carry, seen)
    choose: Callable[..., tuple[Array, Any]]  # (params, key, Step [E], seen) -> (action [E, ...], extras)


@struct.dataclass
class Playing:
    """Where E rows are: each at an arrival that the agent has looked at and not yet decided on."""

    env: Any  # state of the JaxEnv; () of environments that are stepped from the host
    step: Step  # [E]
    carry: Any
    seen: Any


def begin(env: JaxEnv, player: Player, params: Params, key: Array, rows: int) -> Playing:
    """A new episode in each of E = `rows` rows."""
    env_key, look_key = jax.random.split(key)
    state, step = env.reset(env_key, rows)
    return begin_at(player, params, look_key, state, step)


def begin_at(player: Player, params: Params, key: Array, state: Any, step: Step) -> Playing:
    """A new episode in every row, at its first Step [E]. state: as of `Playing.env`."""
    carry, seen = player.look(params, key, player.initial(params, len(step.reward)), step)
    return without_weak_types(Playing(state, step, carry, seen))


def without_weak_types(tree: Any) -> Any:
    """A pytree whose arrays have no weak types: jit would compile again for its own results if they had."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: x if is_key(x) else jax.lax.convert_element_type(x, x.dtype), tree)


def unroll(
    env: JaxEnv, player: Player, params: Params, key: Array, playing: Playing, count: int
) -> tuple[Playing, Step, Any]:
    """`count` decisions of an environment in pure JAX, inside jit.

    Returns: (where the rows are then, Step [count + 1, E], seen [count + 1, ...]): the arrivals from the present one.
    """

    def decide(playing: Playing, key: Array) -> tuple[Playing, tuple[Step, Any]]:
        choose_key, env_key, look_key = jax.random.split(key, 3)
        action, _ = player.choose(params, choose_key, playing.step, playing.seen)
        state, step = env.step(env_key, playing.env, action)
        carry, seen = player.look(params, look_key, playing.carry, step)
        return without_weak_types(Playing(state, step, carry, seen)), (playing.step, playing.seen)

    playing, rows = jax.lax.scan(decide, playing, jax.random.split(key, count))
    add = lambda rows, last: jnp.concatenate([rows, last[None]])
    steps, seen = jax.tree.map(add, rows, (playing.step, playing.seen))
    return playing, steps, seen


class Compiled(NamedTuple):
    """A Player in pieces for environments that are stepped from the host; `from_host` says what each takes."""

    begin_at: Callable
    choose: Callable
    look: Callable
    stack: Callable  # of all arrivals and what was seen at each
    sharding: Any  # of a Step [E]


def compile_player(player: Player, params: Params, step: Step, mesh: Mesh) -> Compiled:
    """The Compiled of a Player, its rows split over a mesh. Keys: one of the unroll, and the number of the decision.

    Args: params, step: as it will be called with, or their shapes.
    """

    def first(params: Params, key: Array, step: Step) -> Playing:
        return begin_at(player, params, key, (), step)

    def choose(params: Params, key: Array, t: Array, playing: Playing) -> Array:
        return player.choose(params, jax.random.fold_in(key, 2 * t), playing.step, playing.seen)[0]

    def look(params: Params, key: Array, t: Array, playing: Playing, step: Step) -> Playing:
        carry, seen = player.look(params, jax.random.fold_in(key, 2 * t + 1), playing.carry, step)
        return without_weak_types(Playing((), step, carry, seen))

    def stack(*rows: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    def shapes(rows: int) -> Playing:
        few = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), step)
        return jax.eval_shape(first, params, jax.random.key(0), few)

    shardings, over_rows = devices.split_rows(mesh, shapes), devices.split(mesh, 0)
    first, look = (jax.jit(function, out_shardings=shardings) for function in (first, look))
    return Compiled(first, jax.jit(choose, out_shardings=over_rows), look, jax.jit(stack), over_rows)


def from_host(
    env: VecEnv, compiled: Compiled, params: Params, key: Array, playing: Playing, count: int, stopwatch: Stopwatch
) -> tuple[Playing, Step, Any]:
    """As `unroll`, of environments that are stepped from the host. Counts "act" and "env".

    Of several processes each steps its share of the rows.

    Raises: Stopped before the next decision, when a signal asks the run to end.
    """
    rows = []
    for t in range(count):
        processes.check()
        with stopwatch("act"):
            action = processes.from_devices(compiled.choose(params, key, np.int32(t), playing), axis=0)
        with stopwatch("env"):
            step = env.step(action)
        rows.append((playing.step, playing.seen))
        with stopwatch("act"):
            on_device = processes.to_devices(step, compiled.sharding)
            playing = compiled.look(params, key, np.int32(t), playing, on_device)
    steps, seen = compiled.stack(*rows, (playing.step, playing.seen))
    return playing, steps, seen
