"""Stopping at the first NaN or infinity of a training phase."""

import jax
import numpy as np

from wmjax.types import NonFiniteError


def check_finite(metrics, params, first_update, of="", each=1):
    """Looks through the metrics of a phase.

    Args:
      metrics: as Learner.update returns them, each with a leading axis [C] of updates; `grad_finite` is bool
        [C, leaves] in the order of `params`; first_update: number of the phase's first update; of: whose they are;
        each: updates from one entry to the next, where metrics are means over as many.
    Raises:
      NonFiniteError: names the first bad update and tensor: a loss, else the first parameter with a bad gradient.
    """
    losses = {name: np.asarray(value) for name, value in metrics.items() if name != "grad_finite"}
    grad_finite = np.asarray(metrics["grad_finite"])
    good = np.logical_and.reduce([np.isfinite(value) for value in losses.values()]) & grad_finite.all(axis=1)
    if good.all():
        return
    update = int(np.argmin(good))
    parts = {name: value for name, value in losses.items() if name not in ("loss", "grad_norm")}
    bad = [name for name, value in parts.items() if not np.isfinite(value[update])]
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]
    bad += [f"gradient of {path}" for path, ok in zip(paths, grad_finite[update], strict=True) if not ok]
    where = f"{of}, " if of else ""
    raise NonFiniteError(
        f"{where}update {first_update + each * update}: {bad[0] if bad else 'grad_norm'} is not finite; training "
        "stopped, the last good checkpoint is kept"
    )
