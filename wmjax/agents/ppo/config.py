"""Settings of proximal policy optimisation inside a world model (Robine et al. 2023, "Smaller World Models")."""

from dataclasses import dataclass

from wmjax import checks


@dataclass(frozen=True)
class PPOConfig:
    """Defaults are the paper's Table 5, or the authors' code where the paper is silent (said so on the line)."""

    learning_rate: float = 2.5e-4
    adam_epsilon: float = 1e-8  # not in the paper: Adam's own default, as are the betas that Table 5 does give
    clip_norm: float = 0.5  # of the gradient; not in the paper: authors' code
    discount: float = 0.99  # gamma
    gae_lambda: float = 0.95
    bootstrap: bool = False  # whether the last imagined state's value counts; Equation 17 ends every episode there
    clip: float = 0.1  # of the probability ratio; of the change in value too, which is not in the paper: authors' code
    entropy: float = 0.01  # c_1 of Equation 8
    value_scale: float = 0.5  # c_2, of half the squared error (the half: authors' code)
    epochs: int = 4  # "number of PPO optimization steps": passes over a rollout
    minibatch: int = 256  # decisions; the last minibatch of an epoch is smaller where they do not divide
    temperature: float = 1.5  # tau of Equation 19, when collecting real experience

    def __post_init__(self):
        checks.above_zero(self, "agent", "learning_rate", "adam_epsilon", "clip_norm", "clip", "temperature")
        checks.between_0_and_1(self, "agent", "discount", "gae_lambda")
        checks.not_negative(self, "agent", "entropy", "value_scale")
        checks.at_least_one(self, "agent", "epochs", "minibatch")
