"""Settings of PlaNet's four latent dynamics models and of their training (Hafner et al. 2019)."""

from dataclasses import dataclass

from wmjax.types import UsageError

KINDS = ("rssm", "ssm", "rnn", "drnn")
ACTIVATIONS = ("relu", "elu")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class RSSMConfig:
    """Defaults are the paper's appendix A, or the authors' code where the paper is silent (said so on the line)."""

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
    image_bits: int = 5
    free_nats: float = 3.0  # on the KL of each time step, summed over dimensions
    kl_scale: float = 1.0
    image_scale: float = 1.0
    reward_scale: float = 10.0  # authors' code; the paper names none. At 1 Adam's epsilon starves the head
    overshooting_distance: int = 1  # D of latent overshooting (section 4); 1: off, as in the final agent
    overshooting_scale: float = 1.0  # beta of all distances above 1, divided by D - 1
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-4
    clip_norm: float = 1000.0
    compute_dtype: str = "float32"  # or bfloat16, for accelerators: of the networks; parameters and losses stay float32

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UsageError(f"model kind {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"model activation {self.activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if self.compute_dtype not in DTYPES:
            raise UsageError(f"model compute_dtype {self.compute_dtype!r}: choose one of {', '.join(DTYPES)}")
        if not 1 <= self.image_bits <= 8:
            raise UsageError(f"model image_bits {self.image_bits}: choose 1 to 8")
        if self.overshooting_distance < 1:
            raise UsageError(f"model overshooting_distance {self.overshooting_distance}: choose 1 (off) or more")
        if self.overshooting_distance > 1 and self.kind == "rnn":
            raise UsageError("model kind 'rnn' has no stochastic latents to overshoot: set overshooting_distance=1")
        positive = "stochastic deterministic hidden decoder_hidden reward_units min_std learning_rate adam_epsilon"
        for name in (*positive.split(), "clip_norm"):
            if not getattr(self, name) > 0:
                raise UsageError(f"model {name} {getattr(self, name)}: must be above 0")
        for name in ("reward_layers", "free_nats", "kl_scale", "image_scale", "reward_scale", "overshooting_scale"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"model {name} {getattr(self, name)}: must be 0 or more")
        for name in ("encoder_widths", "decoder_widths"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise UsageError(f"model {name} {getattr(self, name)}: give at least one width, each above 0")
