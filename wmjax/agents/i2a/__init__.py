"""Imagination-Augmented Agents, which query a frozen world model for features (Buesing et al. 2018, section 3)."""

from wmjax.agents.i2a.actor import Agent, Query, choose, make_actor, make_agent
from wmjax.agents.i2a.config import POLICIES, TRAINED, I2AConfig
from wmjax.agents.i2a.learner import Unroll, act_and_learn, make

__all__ = [
    "TRAINED",
    "POLICIES",
    "Agent",
    "I2AConfig",
    "Query",
    "Unroll",
    "act_and_learn",
    "choose",
    "make",
    "make_actor",
    "make_agent",
]
