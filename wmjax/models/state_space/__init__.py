"""Environment models in pixels and in compact states (Buesing et al. 2018)."""

from wmjax.models.state_space.beginning import Begin, make_begin
from wmjax.models.state_space.config import CONTEXT, KINDS, StateSpaceConfig, model_action_size
from wmjax.models.state_space.learner import make, make_score, rows_of
from wmjax.models.state_space.model import with_background

__all__ = [
    "CONTEXT",
    "KINDS",
    "Begin",
    "StateSpaceConfig",
    "make",
    "make_begin",
    "make_score",
    "model_action_size",
    "rows_of",
    "with_background",
]
