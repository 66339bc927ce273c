"""Independent computations side by side or in turn, whichever the device does faster."""

import jax

from wmjax import backend


def vmap_or_map(function):
    """`function` of pytrees with one leading axis in common: by vmap, on a CPU one after the other.

    For work that fills a device by itself: a CPU gains nothing from doing several at once, and its caches lose.
    Where a CPU is cut into several devices the axis may be split over them, so there it is vmap too.
    """
    if backend.is_cpu() and jax.device_count() == 1:
        return lambda *args: jax.lax.map(lambda row: function(*row), args)
    return jax.vmap(function)
