"""Settings of the planning agent (PlaNet, appendix A)."""

from dataclasses import dataclass

from wmjax.types import UsageError


@dataclass(frozen=True)
class MPCConfig:
    """exploration_noise: deviation of the Gaussian added to planned actions when exploring; 0.3 in appendix A.

    Of discrete actions, not in the paper: the probability of one by chance.
    """

    exploration_noise: float = 0.3

    def __post_init__(self):
        if not self.exploration_noise >= 0:
            raise UsageError(f"agent exploration_noise {self.exploration_noise}: must be 0 or more")
