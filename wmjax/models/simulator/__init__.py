"""The true simulator as a world model: the best any model could be.

`make_model` is of a simulator on the host, under a planner; `compiled.make_model` of an environment in pure JAX.
"""

from wmjax.models.simulator.model import make_model

__all__ = ["make_model"]
