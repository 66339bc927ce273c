"""Settings of the environment models of Buesing et al. (2018) and of their training."""

import math
from dataclasses import dataclass

from wmjax import checks
from wmjax.types import UsageError

KINDS = ("sssm", "dssm_vae", "dssm_det", "rar", "ar", "vae")
STOCHASTIC = ("sssm", "dssm_vae", "vae")  # kinds whose latents are sampled, and have a posterior
DTYPES = ("float32", "bfloat16")
CONTEXT = 3  # images from which the first state is made (Fig. 14)


@dataclass(frozen=True)
class StateSpaceConfig:
    """Defaults are the paper's section 2.3 and appendix A."""

    kind: str = "sssm"
    channels: int = 64  # C of the state; the widths of all layers but the encoder's and decoder's are shares of it
    blocks: tuple[int, int] = (4, 2)  # pixels that the encoder's two stages put into channels, a side (Fig. 11)
    encoder_width: int = 64  # of the encoder's widest layers (Fig. 11)
    decoder_width: int = 64  # of the decoder's (Fig. 10)
    reward_digits: int = 8  # binary digits of a reward; not in the paper
    order: int = 3  # K of the auto-regressive model; not in the paper
    compute_dtype: str = "float32"  # or bfloat16, for accelerators: of the modules; parameters, losses stay float32
    jump: int = 1  # c: steps of the environment in one of the model (section 2.2); 3 in the paper's jumpy models
    sees_actions: bool = True  # False: the unconditional model, which knows what may happen under the data's policy
    learning_rate: float = 3e-4  # not in the paper, which chose one for each model on MsPacman
    contrast: float = 0.0  # 0: the paper; above: images are deviations from a background, see model.py
    latent_std: float = math.log(2)  # of latents before training; not in the paper: a softplus of zero
    last_layer_scale: float = 1.0  # of the decoder's last layer before training; 1: the paper; 0: first logits are 0
    kl_anneal_target: float = 0.0  # 0: the paper; else the KL weighs 1e-8 in the loss until the images cost this share
    # of what the data's mean image costs, and rises to 1 from then on; see annealing.py
    pad_context: float = 0.0  # 0: the paper; else the probability that a training chunk's context is as at an
    # episode's start, where the first image stands in place of missing ones: states that agents begin from
    clip_norm: float = 1000.0  # of the gradient; not in the paper: one divergent step would fill Adam's memory

    def __post_init__(self):
        checks.one_of(self, "model", kind=KINDS, compute_dtype=DTYPES)
        if self.channels < 8 or self.channels % 8:
            raise UsageError(f"model channels {self.channels}: must be a multiple of 8")
        if len(self.blocks) != 2 or not all(1 <= block <= 16 for block in self.blocks):
            raise UsageError(f"model blocks {self.blocks}: must be two numbers from 1 to 16")
        for name in ("encoder_width", "decoder_width"):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise UsageError(f"model {name} {getattr(self, name)}: must be a multiple of 4")
        if self.decoder_width % self.blocks[1] ** 2:
            raise UsageError(
                f"model decoder_width {self.decoder_width}: must be a multiple of {self.blocks[1] ** 2}, the pixels of "
                f"the second of blocks={self.blocks}"
            )
        for name in ("reward_digits", "order", "jump"):
            if not 1 <= getattr(self, name) <= 16:
                raise UsageError(f"model {name} {getattr(self, name)}: must be from 1 to 16")
        for name in ("contrast", "last_layer_scale"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"model {name} {getattr(self, name)}: must be finite and at least 0")
        if not 0 <= self.kl_anneal_target < 1:
            raise UsageError(f"model kl_anneal_target {self.kl_anneal_target}: must be at least 0 and below 1")
        if not 0 <= self.pad_context <= 1:
            raise UsageError(f"model pad_context {self.pad_context}: must be from 0 to 1")
        if self.pad_context and self.kind == "ar":
            raise UsageError(f"model pad_context {self.pad_context}: not for kind 'ar', whose states see actions too")
        if not 0 < self.latent_std <= 10:
            raise UsageError(f"model latent_std {self.latent_std}: must be above 0 and at most 10")
        checks.above_zero(self, "model", "learning_rate", "clip_norm")


def map_of(config, obs_shape):
    """(X, Y) of the state."""
    return tuple(-(-side // math.prod(config.blocks)) for side in obs_shape[:2])


def padded_shape(config, obs_shape):
    """Of the images that the modules take and draw: rows and columns are multiples of the two blocks together."""
    rows, columns = (math.prod(config.blocks) * side for side in map_of(config, obs_shape))
    return rows, columns, obs_shape[-1]


def model_action_size(config, action_spec):
    """Length of the model's action vector: the actions of `jump` steps of the environment, side by side."""
    return config.jump * action_spec.size
