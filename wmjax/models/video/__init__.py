"""Models whose state is the image: SV2P with two kinds of rewards (Babaeizadeh et al. 2020, OT_OR and OT_LR)."""

from wmjax.models.video.config import VideoConfig
from wmjax.models.video.learner import make

__all__ = ["VideoConfig", "make"]
