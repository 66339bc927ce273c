"""Settings of the trade-offs study's models of rewards alone (Babaeizadeh et al. 2020)."""

from dataclasses import dataclass

from wmjax import checks
from wmjax.types import UsageError

KINDS = ("recurrent", "conv")


@dataclass(frozen=True)
class RewardOnlyConfig:
    """Sizes are those of the authors' code with one LSTM, which give the 81.6K parameters of Table 6.

    Table 8 prints others, which do not; the code as it was published has three LSTMs, which has 600K.
    """

    kind: str = "recurrent"  # R: an LSTM over actions, from one image on; conv: R_conv, all rewards at once (Fig. 10)
    horizon: int = 12  # of conv: rewards predicted at once, the planner's horizon (Table 13)
    encoder_widths: tuple[int, ...] = (32, 64, 16)  # channels of the convolutions, kernel 3, stride 2
    code: int = 16  # numbers that an image becomes
    action_widths: tuple[int, ...] = (64, 32, 16)
    lstm_units: int = 64  # of recurrent
    reward_widths: tuple[int, ...] = (128, 32)
    dropout: float = 0.0  # of both layers of the reward head; 0.2 in the code as published, the paper names none
    learning_rate: float = 1e-3  # Table 13
    adam_epsilon: float = 1e-3

    def __post_init__(self):
        checks.one_of(self, "model", kind=KINDS)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model dropout {self.dropout}: must be at least 0 and below 1")
        checks.above_zero(self, "model", "horizon", "code", "lstm_units", "learning_rate", "adam_epsilon")
        checks.widths(self, "model", "encoder_widths", "action_widths", "reward_widths")
