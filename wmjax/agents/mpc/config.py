"""Settings of the planning agent (PlaNet, appendix A)."""

from dataclasses import dataclass

from wmjax import checks


@dataclass(frozen=True)
class MPCConfig:
    """exploration_noise: deviation of the Gaussian added to planned actions when exploring; 0.3 in appendix A.

    For discrete actions, not in the paper: the probability that one is drawn uniformly instead.
    """

    exploration_noise: float = 0.3

    def __post_init__(self):
        checks.not_negative(self, "agent", "exploration_noise")
