"""Settings of Imagination-Augmented Agents (Weber et al. 2017; Buesing et al. 2018, sections 3 and B.2)."""

from dataclasses import dataclass

from wmjax import checks
from wmjax.types import UsageError

POLICIES = ("none", "uniform", "distilled", "learned")
TRAINED = ("distilled", "learned")  # those that are networks of their own
JUMP_ACTIONS = ("repeat", "independent")


@dataclass(frozen=True)
class I2AConfig:
    """Defaults are of Buesing et al. (2018); where the paper is silent the line says so.

    rollout_policy: none: no model-based path, the model-free baseline; uniform: actions by chance; distilled: imitates
    the agent (section 3.2); learned: its probabilities are the model's actions, and the policy gradient flows back
    through the whole rollout, learning to query (section 3.3).
    """

    rollout_policy: str = "distilled"
    rollouts: int = 5  # K
    horizon: int = 4  # tau, steps of the model; 2, 3 or 4
    force_first: bool = True  # rollout k begins with action k: K is then the number of actions; not in the paper
    jump_actions: str = "repeat"  # of a jumpy model: one action for all of its decisions, or a draw each; not in paper
    sees_rewards: bool = True  # whether predicted rewards belong to the imaginations; not in the paper, as Weber et al.
    pixels: bool = False  # imaginations are images: they are given to a stronger summariser, and pi_r is a Trunk
    modulated: bool = False  # a part of the model is trained by the policy gradient (section 3.4)
    distillation: float = 0.1  # lambda_D; not in the paper
    rollout_entropy: float = 0.0  # penalty on the entropy of a learned rollout policy; not in the paper
    kernels: tuple[int, ...] = (4, 8, 4, 3)  # of the model-free path
    strides: tuple[int, ...] = (2, 4, 2, 1)
    widths: tuple[int, ...] = (16, 32, 64, 64)
    units: int = 512
    encoder_kernel: int = 4  # of the encoder of imagined steps and of the rollout policy
    encoder_widths: tuple[int, ...] = (32, 16)
    encoder_strided: tuple[int, ...] = ()  # convolutions that halve imaginations as large as images first; not in paper
    encoder_units: int = 128
    lstm_units: int = 256
    policy_widths: tuple[int, ...] = (32, 32)
    policy_units: int = 128
    learning_rate: float = 7e-4  # this and all below: not in the paper
    adam_epsilon: float = 1e-5
    clip_norm: float = 0.5  # of the gradient
    discount: float = 0.99  # gamma, a decision
    entropy: float = 0.01
    value_scale: float = 0.5  # of half the squared error
    reward_scale: float = 1.0  # of rewards as the agent learns from them

    def __post_init__(self):
        checks.one_of(self, "agent", rollout_policy=POLICIES, jump_actions=JUMP_ACTIONS)
        if self.rollout_policy in TRAINED and self.force_first and self.horizon == 1:
            raise UsageError(
                f"agent horizon 1: of a {self.rollout_policy} rollout policy at least 2, the first actions are given"
            )
        if self.modulated and self.rollout_policy == "none":
            raise UsageError("agent modulated True: needs rollouts, and agent rollout_policy is none")
        if not len(self.kernels) == len(self.strides) == len(self.widths):
            raise UsageError(f"agent kernels, strides, widths {self.kernels, self.strides, self.widths}: equally many")
        if self.pixels and not len(self.policy_widths) == 2 <= len(self.widths):
            raise UsageError(
                f"agent widths, policy_widths {self.widths, self.policy_widths}: with pixels the rollout policy's two "
                "replace the last two"
            )
        counts = ("rollouts", "horizon", "units", "encoder_kernel", "encoder_units", "lstm_units", "policy_units")
        checks.at_least_one(self, "agent", *counts)
        tuples = ("kernels", "strides", "widths", "encoder_widths", "encoder_strided", "policy_widths")
        for name in tuples:
            if any(number < 1 for number in getattr(self, name)):
                raise UsageError(f"agent {name} {getattr(self, name)}: must be at least 1 each")
        checks.above_zero(self, "agent", "learning_rate", "adam_epsilon", "clip_norm", "reward_scale")
        checks.not_negative(self, "agent", "distillation", "rollout_entropy", "entropy", "value_scale")
        checks.between_0_and_1(self, "agent", "discount")
