"""Settings of the two models that predict the next image from the last, and of their training."""

from dataclasses import dataclass

from wmjax import checks
from wmjax.nets.sv2p import FILTERS
from wmjax.types import UsageError

KINDS = ("ot_or", "ot_lr")
GRADIENTS = ("stopped", "shared")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class VideoConfig:
    """Defaults: Table 11 of Babaeizadeh et al. 2020, or the authors' code where the paper is silent (said so)."""

    kind: str = "ot_or"  # ot_or: rewards from the images of a whole horizon; ot_lr: from activations, step by step
    filters_divisor: int = 1  # of the ConvLSTMs' filters: 32, 16, 8, 4, 2, 1 are models 1 to 6 of Table 14
    latent_channels: int = 1  # of N(0, 1) noise beside the action, new at each step; 0: none
    horizon: int = 12  # H, of ot_or: rewards predicted at once, and so the planner's horizon too
    reward_widths: tuple[int, ...] = (32, 32, 16, 8)  # of ot_or: channels of the convolutions that see the images
    context: int = 2  # images of a chunk that are always shown
    sampling_updates: int = 10_000  # over which training shows fewer and fewer of the others (authors' code)
    reward_gradient: str = "stopped"  # before the images' network, or shared (section A.3)
    actions_late: bool = False  # authors' code: an image follows from the action before the one that led to it
    reward_scale: float = 1.0
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-3
    clip_norm: float = 1000.0  # authors' code
    compute_dtype: str = "float32"  # or bfloat16, for accelerators: of SV2P's convolutions

    def __post_init__(self):
        checks.one_of(self, "model", kind=KINDS, reward_gradient=GRADIENTS, compute_dtype=DTYPES)
        if self.filters_divisor < 1 or any(filters % self.filters_divisor for filters in FILTERS):
            raise UsageError(f"model filters_divisor {self.filters_divisor}: choose 1, 2, 4, 8, 16 or 32")
        checks.at_least_one(self, "model", "horizon", "context", "sampling_updates")
        checks.above_zero(self, "model", "learning_rate", "adam_epsilon", "clip_norm")
        checks.widths(self, "model", "reward_widths")
        checks.not_negative(self, "model", "latent_channels", "reward_scale")

    @property
    def filters(self):
        """Of each ConvLSTM."""
        return tuple(filters // self.filters_divisor for filters in FILTERS)
