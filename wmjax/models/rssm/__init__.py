"""RSSM, SSM, RNN and DRNN of PlaNet (Hafner et al. 2019)."""

from wmjax.models.rssm.config import RSSMConfig
from wmjax.models.rssm.learner import make

__all__ = ["RSSMConfig", "make"]
