"""The true simulator as a world model: the best any model could be, under the same planner."""

from wmjax.models.simulator.model import make_model

__all__ = ["make_model"]
