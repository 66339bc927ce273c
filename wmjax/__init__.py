"""World models in JAX, for reinforcement learning from pixels.

Start at `wmjax.types`, the architecture on one page. Environments: `wmjax.envs`. Models: `wmjax.models`, scanned over
time by `wmjax.imagine`. Planners and agents: `wmjax.planners`, `wmjax.agents`.
"""

__version__ = "0.1.0"
