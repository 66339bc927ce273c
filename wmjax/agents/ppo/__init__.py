"""A policy over discrete actions, trained inside a world model by proximal policy optimisation (Robine et al. 2023)."""

from wmjax.agents.ppo.actor import make_actor, make_policy
from wmjax.agents.ppo.config import PPOConfig
from wmjax.agents.ppo.learner import Rollout, dream, make

__all__ = ["PPOConfig", "Rollout", "dream", "make", "make_actor", "make_policy"]
