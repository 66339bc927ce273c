"""Smaller World Models for Reinforcement Learning (Robine et al. 2023): an Atari agent trained inside its world model.

    python -m experiments.smaller_world_models --config=experiments/smaller_world_models/config.py:Pong,cpu --workdir=runs/p

Presets: `paper` is Table 5, 102,400 interactions; `cpu` is a schedule for two cores. The game is a gym name such as
Pong or MsPacman, or a full environment name such as gym:CartPole-v1; Pong+Tennis trains one agent for each in one program.
"""  # noqa: E501

from dataclasses import dataclass

from ml_collections import ConfigDict, config_dict

from experiments.presets import block, check_counts, split, tasks
from wmjax.agents.ppo import PPOConfig
from wmjax.models.vq_convlstm import VQConvLSTMConfig
from wmjax.types import UsageError

VIEWS = ("latents", "reconstructions")


@dataclass(frozen=True)
class TrainConfig:
    """Table 5. Of a tuple each iteration takes its own value, and those after the last take the last one."""

    iterations: int = 15
    interactions: tuple[int, ...] = (12_800, 6_400)  # collected in each iteration, under random actions in the first
    hold: int = 1  # decisions for which each of those random actions is held; not in the paper
    warmup_epochs: int = 50  # of the autoencoder alone, in the first iteration
    warmup_rate: float = 10.0  # times the autoencoder's learning rate meanwhile: 1e-3
    epochs: tuple[int, ...] = (140, 32, 24, 20, 16, 14, 12, 11, 10, 9, 8, 8, 7, 7, 6)  # of the dynamics
    intervals: tuple[int, ...] = (2, 2, 3)  # updates of the dynamics for one of the autoencoder; authors' code
    policy_sees: str = "latents"  # or reconstructions: decoded images (question 3 of section 4.3)
    frames: int = 1  # newest frames in an image, 1 or 4 (question 1 of section 4.3)
    autoencoder_batch: int = 40
    dynamics_batch: int = 4
    dynamics_chunk: int = 11
    imagined_batch: int = 16
    imagined_steps: int = 50
    rounds: tuple[int, ...] = (1000,) * 7 + (2000,) + (1000,) * 3 + (2000,) + (1000,) * 2 + (3000,)  # authors' code
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_counts(self, "config.train")
        if not self.warmup_rate > 0:
            raise UsageError(f"config.train.warmup_rate={self.warmup_rate}: must be above 0")
        if self.policy_sees not in VIEWS:
            raise UsageError(f"config.train.policy_sees={self.policy_sees!r}: choose one of {', '.join(VIEWS)}")
        if self.frames > 16:
            raise UsageError(f"config.train.frames={self.frames}: must be at most 16")
        if self.dynamics_chunk < 2:
            raise UsageError(f"config.train.dynamics_chunk={self.dynamics_chunk}: must be at least 2")


# Settings that a resumed run may have other values of: they change nothing of what was done.
MAY_DIFFER = ("train.iterations", "train.keep_checkpoints", "env.workers", "env.seconds", "env.failures")


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes of the policy network. Defaults: authors' code."""

    channels: int = 64  # of the convolutions over a grid
    kernel: int = 5  # of the second of them
    hidden: int = 512  # units of the linear layer

    def __post_init__(self) -> None:
        check_counts(self, "config.policy")
        if self.kernel % 2 == 0:
            raise UsageError(f"config.policy.kernel={self.kernel}: must be odd")


@dataclass(frozen=True)
class EvalConfig:
    """episodes: played at once after every iteration, actions drawn at temperature 1 (section 4.1)."""

    episodes: int = 32

    def __post_init__(self) -> None:
        check_counts(self, "config.evaluation")


BLOCKS = dict(model=VQConvLSTMConfig, policy=PolicyConfig, agent=PPOConfig, train=TrainConfig, evaluation=EvalConfig)
USAGE = "experiments/smaller_world_models/config.py:GAME,PRESET"
OWN = ("gym", "py")  # families of a user's own environments, see wmjax/envs/own.py
EXAMPLE = "Pong"  # the game of which --help tells


def paper() -> ConfigDict:
    """Table 5."""
    return ConfigDict(
        dict(
            seed=0,
            population=1,  # seeds of each game in one program: seed, seed + 1, ...; each as a run of its own would
            devices="1",  # or a number, or all: batches and evaluation episodes are split over them
            env=dict(
                size=96,
                episode_steps=config_dict.placeholder(int),  # time limit in decisions; none: 108,000 frames
                full_action_set=config_dict.placeholder(bool),  # all 18; none: those that the game uses
                fire_reset=config_dict.placeholder(bool),  # FIRE begins an episode; none: where a game has it
            ),
            model=block(VQConvLSTMConfig()),
            policy=block(PolicyConfig()),
            agent=block(PPOConfig()),
            train=block(TrainConfig()),
            evaluation=block(EvalConfig()),
        )
    )


def cpu() -> ConfigDict:
    """Two CPU cores, a quarter of an hour for the first of three iterations. Not in the paper: found by measuring on
    Freeway, see docs/lab/2026-11-22-freeway-cpu.md.
    """
    config = paper()
    config.env.size = 48
    config.model.update(
        restart_below=0.5,  # see docs/lab/2026-11-29-freeway-restart.md
        encoder_widths=(16, 32, 64),
        decoder_widths=(64, 32, 16),
        cells=(64,),  # learns in fewer updates than two
        kernel=3,
        dynamics_learning_rate=3e-3,
        reward_learning_rate=2e-4,  # a head that sees a hundred rewards overfits
    )
    config.policy.update(channels=32, kernel=3, hidden=128)
    config.agent.bootstrap = True  # in Freeway a crossing takes forty decisions, most of an imagined episode
    config.train.update(
        iterations=3,
        interactions=(25_600, 6_400),
        hold=64,  # a chicken needs forty decisions to cross the road
        warmup_epochs=10,
        warmup_rate=30.0,
        epochs=(20, 8),
        intervals=(8,),
        dynamics_batch=16,
        rounds=(400, 250),
    )
    config.evaluation.update(episodes=16)
    return config


PRESETS = dict(paper=paper, cpu=cpu)


def get_config(argument: str = "") -> ConfigDict:
    """The config of "game,preset"."""
    game, preset = split(argument, PRESETS, "game")
    config = PRESETS[preset]()
    config.task = tasks(game, "atari")
    if config.task.partition(":")[0] in OWN:  # nothing of a joystick; episode_steps counts steps of the environment
        config.env = ConfigDict(
            dict(
                size=config.env.size,
                action_repeat=1,
                episode_steps=config_dict.placeholder(int),
                grey=True,
                image_key="pixels",
                workers=1,
                seconds=0.0,
                failures=0,
            )
        )
    if preset == "paper" and config.task.startswith("atari:"):
        config.env.fire_reset = False  # authors' code: their wrapper presses none
    return config
