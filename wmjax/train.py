"""Training: many updates as one dispatch, the moving average of parameters that acts, the stop at the first NaN."""

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.ops.batching import vmap_or_map
from wmjax.types import Learner, NonFiniteError, UsageError


def make_phase(update, *, donate=False, sharding=None):
    """One dispatch of updates, one for each key.

    Args:
      update: (state, memory, key) -> (state, metrics); of a population all three have leading axes [S].
      donate: whether the state's buffers are reused: then the old state is gone, also for a run that is stopped.
      sharding: of the results.
    Returns: a jitted (state, memory, keys [C]) -> (state, metrics [C]).
    """

    def phase(state, memory, keys):
        return jax.lax.scan(lambda state, key: update(state, memory, key), state, keys)

    return jax.jit(phase, donate_argnums=0 if donate else (), out_shardings=sharding)


def make_counted_phase(update, points, sharding=None):
    """One dispatch of a phase whose number of updates is an argument, so that another number compiles nothing.

    A phase is shown as a curve of `points` points. A dispatch makes the updates `first` to `stop` - 1 of one point. The
    key of an update depends on the point and on the update's number alone, so a point may be cut into dispatches
    anywhere.

    Args:
      update: (state, memory, key, *numbers) -> (state, metrics) of one member.
      points: of the curve.
      sharding: of the results.
    Returns: a jitted (states [S], memories [S], keys [S] of the phase, point, first, stop, *numbers) -> (states [S],
      sums [S] of the metrics over the updates). numbers: further arguments of `update`, the same for all members. The
      states are donated.
    """

    def phase(states, memories, keys, point, first, stop, *numbers):
        def updates_of_member(state, memory, key):
            step = lambda state, key: update(state, memory, key, *numbers)
            return summed(step, first, stop, state, jax.random.split(key, points)[point])

        return vmap_or_map(updates_of_member)(states, memories, keys)

    return jax.jit(phase, donate_argnums=0, out_shardings=sharding)


def summed(update, first, stop, state, key):
    """Updates `first` to `stop` - 1 of (state, key) -> (state, metrics). Returns: (state, float32 sums of metrics)."""
    update = jax.jit(update)  # traced once, for the shapes of its metrics and for the loop
    shapes = jax.eval_shape(update, state, key)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)

    def step(i, carry):
        state, total = carry
        state, metrics = update(state, jax.random.fold_in(key, i))
        return state, jax.tree.map(jnp.add, total, metrics)

    return jax.lax.fori_loop(first, stop, step, (state, zeros))


def repeated(update, count, state, key):
    """`count` >= 1 times (state, key) -> (state, metrics). Returns: (state, means of the metrics, as float32)."""
    state, total = summed(update, 0, count, state, key)
    return state, jax.tree.map(lambda x: x / count, total)


def with_average(learner, decay):
    """A Learner whose `LearnerState.acting` is the exponential moving average of its parameters over updates.

    Args: decay: 0 leaves the learner as it is: the newest parameters act. Early on the average is over a tenth of the
      updates so far, so that the initial parameters are soon forgotten.
    Raises: UsageError unless 0 <= decay < 1.
    """
    if not 0 <= decay < 1:
        raise UsageError(f"decay {decay} of the average of parameters: must be at least 0 and below 1")
    if not decay:
        return learner

    def init(key):
        state = learner.init(key)
        return state.replace(acting=jax.tree.map(jnp.copy, state.params))

    def update(state, key, batch):
        acting = state.acting
        state, metrics = learner.update(state.replace(acting=None), key, batch)
        return state.replace(acting=average(acting, state, decay)), metrics

    return Learner(init, update)


def average(acting, state, decay):
    """The moving average after one more update, of which `state` is the result."""
    updates = state.updates.astype(jnp.float32)
    keep = jnp.minimum(decay, updates / (updates + 10.0))
    return jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, acting, state.params)


def acting_params(state):
    """The parameters of a LearnerState that act: the average where there is one, else the newest."""
    return state.params if state.acting is None else state.acting


def check_finite(metrics, first_update, owner="", updates_per_row=1):
    """Raises for the first update of a phase whose loss or gradient is not finite.

    Args:
      metrics: numpy arrays as Learner.update returns them, each with a leading axis [C] of updates; first_update:
        number of the phase's first update; owner: whose they are; updates_per_row: updates from one entry to the
        next, where metrics are means over as many.
    Raises:
      NonFiniteError: names the first bad update and tensor: a loss, else the first parameter with a bad gradient.
    """
    losses = {name: np.asarray(value) for name, value in metrics.items() if name != "grad_finite"}
    flags = {name: np.asarray(value) == 1 for name, value in metrics["grad_finite"].items()}
    good = np.logical_and.reduce([*(np.isfinite(value) for value in losses.values()), *flags.values()])
    if good.all():
        return
    row = int(np.argmin(good))
    bad = [name for name, value in losses.items() if name not in ("loss", "grad_norm") and not np.isfinite(value[row])]
    bad += [f"gradient of {path}" for path, flag in flags.items() if not flag[row]]
    where = f"{owner}, " if owner else ""
    raise NonFiniteError(
        f"{where}update {first_update + updates_per_row * row}: {bad[0] if bad else 'grad_norm'} is not finite; "
        "training stopped, the last good checkpoint is kept"
    )
