"""R of the trade-offs study: rewards alone are predicted, no images (Babaeizadeh et al. 2020)."""

from wmjax.models.reward_only.config import RewardOnlyConfig
from wmjax.models.reward_only.learner import make

__all__ = ["RewardOnlyConfig", "make"]
