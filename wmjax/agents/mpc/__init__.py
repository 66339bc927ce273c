"""The planning agent of PlaNet. Its learner is the model's own: nothing but the model is trained."""

from wmjax.agents.mpc.actor import make_actor
from wmjax.agents.mpc.config import MPCConfig

__all__ = ["MPCConfig", "make_actor"]
