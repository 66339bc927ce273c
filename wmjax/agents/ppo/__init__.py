"""A policy trained inside a world model by proximal policy optimisation (Smaller World Models)."""

from wmjax.agents.ppo.actor import make_actor, make_policy
from wmjax.agents.ppo.config import PPOConfig
from wmjax.agents.ppo.learner import Rollout, make

__all__ = ["PPOConfig", "Rollout", "make", "make_actor", "make_policy"]
