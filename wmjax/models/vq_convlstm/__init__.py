"""VQ-VAE and ConvLSTM of Smaller World Models (Robine et al. 2023)."""

from wmjax.models.vq_convlstm.config import VQConvLSTMConfig
from wmjax.models.vq_convlstm.learner import make, make_updates
from wmjax.models.vq_convlstm.model import make_codes, pixel_likelihood, through_reconstructions

__all__ = ["VQConvLSTMConfig", "make", "make_codes", "make_updates", "pixel_likelihood", "through_reconstructions"]
