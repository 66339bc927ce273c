"""Settings of PlaNet's four latent dynamics models and of their training (Hafner et al. 2019)."""

from dataclasses import dataclass

from wmjax import checks
from wmjax.types import UsageError

CHOICES = dict(
    kind=("rssm", "ssm", "rnn", "drnn"),
    activation=("relu", "elu"),
    reward_from=("features", "images"),
    reward_gradient=("shared", "stopped"),
    image_fit=("crop", "resize"),
    compute_dtype=("float32", "bfloat16"),
)
POSITIVE = (
    "stochastic deterministic hidden decoder_hidden reward_units reward_horizon vector_units min_std learning_rate "
    "adam_epsilon clip_norm"
)
NOT_NEGATIVE = (
    "reward_layers free_nats kl_scale prior_scale image_side image_scale vector_scale reward_scale overshooting_scale"
)
WIDTHS = ("encoder_widths", "decoder_widths", "reward_widths")


@dataclass(frozen=True)
class RSSMConfig:
    """Defaults are the paper's appendix A, or the authors' code where the paper is silent (said so on the line).

    Settings said to be of the trade-offs study are of Babaeizadeh et al. 2020; by default they change nothing.
    """

    kind: str = "rssm"  # rssm: GRU and sample; ssm: sample alone; rnn: no sample, no KL (Fig. 2); drnn: 2 GRUs (Fig. 8)
    stochastic: int = 30  # Z, size of the sample
    deterministic: int = 200  # units of each GRU
    hidden: int = 200  # units of the layers before the GRU (not of the drnn), the prior and the posterior
    min_std: float = 0.1  # not in the paper: authors' code
    activation: str = "relu"  # appendix E compares relu and elu
    encoder_widths: tuple[int, ...] = (32, 64, 128, 256)  # Ha & Schmidhuber 2018
    decoder_widths: tuple[int, ...] = (128, 64, 32)
    decoder_hidden: int = 1024
    reward_layers: int = 2  # "two fully connected layers of size 200"
    reward_units: int = 200
    reward_from: str = "features"  # trade-offs study: features of a state (LT_LR), or images of a horizon (LT_OR)
    reward_horizon: int = 12  # of reward_from=images: images seen and rewards predicted at once, the planner's horizon
    reward_widths: tuple[int, ...] = (32, 32, 16, 8)  # of reward_from=images: channels of its convolutions
    reward_leak: bool = False  # of reward_from=images: the published input, in training the last of its own targets
    reward_gradient: str = "shared"  # trade-offs study: what the reward's loss trains; stopped: the reward head alone
    vector_units: int = 200  # of vectors beside images, where there are any: of their networks; not in the paper
    image_bits: int = 5
    image_side: int = 128  # trade-offs study: side of the centre that is predicted, in pixels; 128: all, 0: none
    image_fit: str = "crop"  # of a smaller image_side: that part of the image (Fig. 4), or resize, all of it (Fig. 6)
    free_nats: float = 3.0  # on the KL of each time step, summed over dimensions
    kl_scale: float = 1.0
    prior_scale: float = 1.0  # of the KL's gradient in the prior alone: KL balancing (Hafner et al. 2021); not in paper
    image_scale: float = 1.0
    vector_scale: float = 1.0  # of vectors beside images; not in the paper
    reward_scale: float = 10.0  # authors' code; the paper names none. At 1 Adam's epsilon starves the head
    overshooting_distance: int = 1  # D of latent overshooting (section 4); 1: off, as in the final agent
    overshooting_scale: float = 1.0  # beta of all distances above 1, divided by D - 1
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-4
    clip_norm: float = 1000.0
    compute_dtype: str = "float32"  # or bfloat16, for accelerators: of the networks; parameters and losses stay float32

    @property
    def predicts_images(self):
        """Whether there is a decoder: without it this is the trade-offs study's R_LL."""
        return self.image_scale > 0 and self.image_side > 0

    def __post_init__(self):
        checks.one_of(self, "model", **CHOICES)
        if not 1 <= self.image_bits <= 8:
            raise UsageError(f"model image_bits {self.image_bits}: choose 1 to 8")
        if self.overshooting_distance < 1:
            raise UsageError(f"model overshooting_distance {self.overshooting_distance}: choose 1 (off) or more")
        if self.overshooting_distance > 1 and self.kind == "rnn":
            raise UsageError("model kind 'rnn' has no stochastic latents to overshoot: set overshooting_distance=1")
        checks.above_zero(self, "model", *POSITIVE.split())
        checks.not_negative(self, "model", *NOT_NEGATIVE.split())
        checks.widths(self, "model", *WIDTHS)
        if self.reward_from == "images" and not self.predicts_images:
            raise UsageError("model reward_from 'images' needs them: set image_scale and image_side above 0")
        if self.reward_from == "features" and self.reward_leak:
            raise UsageError("model reward_leak is of reward_from=images")
