"""Settings of the world model of Smaller World Models and of its training (Robine et al. 2023)."""

from dataclasses import dataclass

from wmjax import checks
from wmjax.types import UsageError

LARGEST_GRID = 16  # cells a side; a kernel sees five of them


@dataclass(frozen=True)
class VQConvLSTMConfig:
    """Defaults are the paper's section 3.2 and Table 5, or the authors' code where they are silent (said so)."""

    encoder_widths: tuple[int, ...] = (32, 64, 128, 256)  # each halves the image: 96 becomes 6
    decoder_widths: tuple[int, ...] = (256, 128, 64, 32)  # from the grid outwards, as many as the encoder's
    latent: str = "discrete"  # or continuous: a number at each position (section 4.3, Q2)
    dimensions: int = 2  # of the latent: 1 puts the grid's rows below each other, or makes it a vector (Q2)
    predictor: str = "independent"  # or autoregressive: a PixelCNN over the next codes, one ConvLSTM (Q4)
    encoder_kernel: int = 4  # of strided convolutions; 2: every cell sees a patch of its own (Q5)
    likelihood: str = "continuous_bernoulli"  # of pixels, or bernoulli, not in the paper
    codes: int = 128
    code_size: int = 32
    cells: tuple[int, ...] = (128, 128)  # channels of each ConvLSTM
    kernel: int = 5  # not in the paper: authors' code
    reward_channels: int = 32  # authors' code
    reward_hidden: int = 512  # authors' code
    commitment: float = 0.25  # authors' code: weight of the encoder's distance to its codes
    codebook_decay: float = 0.99  # authors' code
    codebook_epsilon: float = 1e-5  # authors' code
    restart_below: float = 0.0  # outputs in a batch; codes used less begin again at one of them. Not in the paper: 0
    norm_decay: float = 0.9  # of the running statistics of batch norm; authors' code
    learning_rate: float = 1e-4  # of the autoencoder
    context: int = 4  # steps of a sequence that are fed real latents; sampled ones after them
    dynamics_learning_rate: float = 5e-4
    reward_learning_rate: float = 1e-3
    reward_scale: float = 1e-6  # of the reward's gradient where it enters the dynamics

    def __post_init__(self):
        if len(self.encoder_widths) != len(self.decoder_widths) or not self.encoder_widths:
            raise UsageError(
                f"model encoder_widths {self.encoder_widths} and decoder_widths {self.decoder_widths}: as many of one "
                "as of the other"
            )
        checks.one_of(self, "model", latent=("discrete", "continuous"), dimensions=(2, 1), encoder_kernel=(4, 2))
        checks.one_of(self, "model", predictor=("independent", "autoregressive"))
        checks.one_of(self, "model", likelihood=("continuous_bernoulli", "bernoulli"))
        if self.latent == "continuous" and self.predictor == "autoregressive":
            raise UsageError("model predictor 'autoregressive': only for discrete latents")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"model kernel {self.kernel}: must be odd")
        for name in ("codebook_decay", "norm_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"model {name} {getattr(self, name)}: must be at least 0 and below 1")
        if not self.cells:
            raise UsageError("model cells (): name the channels of at least one")
        checks.not_negative(self, "model", "restart_below", "reward_scale")
        positive = "codes code_size reward_channels reward_hidden commitment codebook_epsilon learning_rate context"
        checks.above_zero(self, "model", *positive.split(), "dynamics_learning_rate", "reward_learning_rate")
        for name in ("encoder_widths", "decoder_widths", "cells"):
            if min(getattr(self, name)) < 1:
                raise UsageError(f"model {name} {getattr(self, name)}: must be above 0")


def grid_of(config, obs_shape):
    """(rows, columns) of the latent grid; raises UsageError for images that do not halve so often."""
    step = 2 ** len(config.encoder_widths)
    grid = tuple(side // step for side in obs_shape[:2])
    if any(side % step for side in obs_shape[:2]) or not all(1 <= side <= LARGEST_GRID for side in grid):
        raise UsageError(
            f"images of {obs_shape[0]} x {obs_shape[1]} do not fit {len(config.encoder_widths)} encoder_widths: both "
            f"sides must be multiples of {step}, at most {LARGEST_GRID * step}"
        )
    return grid
