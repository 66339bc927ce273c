"""Planners: search for actions in a model's imagination. They are handed a WorldModel and never import one."""

from wmjax.planners.cem import CEMConfig, make_cem
from wmjax.planners.shooting import ShootingConfig, make_random_shooting

__all__ = ["CEMConfig", "ShootingConfig", "make_cem", "make_random_shooting"]
