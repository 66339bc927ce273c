"""Learning and Querying Fast Generative Models for Reinforcement Learning (Buesing et al. 2018): the models alone.

    python -m experiments.environment_models --config=experiments/environment_models/config.py:ball,sssm,cpu --workdir=runs/a

The data are balls, drawn anew by every run from a key of their own ("ball", or "ball:drifting"), or a folder that
`experiments.record` filled. Models: sssm, dssm_vae, dssm_det, rar, ar, vae. Presets: `paper`;
`cpu`, for two cores; `cpu_games`, the same for recorded games; `cpu_grid`, for grids recorded at one pixel a cell.
"""  # noqa: E501

import math
from dataclasses import dataclass

from ml_collections import ConfigDict

from experiments.presets import block, check_counts
from wmjax.envs.check import check_name
from wmjax.models.state_space import KINDS, StateSpaceConfig
from wmjax.types import UsageError


def is_ball(task: str) -> bool:
    """Whether the data of this name are balls, and not a recorded folder."""
    return task.partition(":")[0] == "ball"


@dataclass(frozen=True)
class DataConfig:
    """The balls; a recorded folder has its own sizes. None of it is in the paper but the size of the images.

    reward_scale: recorded rewards times this must be whole numbers (appendix A.2 takes their binary digits); it is the
    unit of what the model predicts. 0.1 for a game whose rewards are tens, 10 for rewards of 0.1. images: where
    recorded images are, on the "device" or, where they do not fit there, on the "host".
    """

    size: int = 80
    length: int = 40  # images of a sequence
    train_sequences: int = 1000
    test_sequences: int = 200
    reward_scale: float = 1.0
    images: str = "device"

    def __post_init__(self) -> None:
        check_counts(self, "config.data")
        check_name("config.data.images", self.images, ("device", "host"))
        if not 0 < self.reward_scale < math.inf:
            raise UsageError(f"config.data.reward_scale={self.reward_scale}: must be finite and above 0")


@dataclass(frozen=True)
class TrainConfig:
    """Section 2.3 and appendix A.5."""

    updates: int = 500_000  # not in the paper
    batch: int = 16
    predicted: int = 10  # T: images after the context, of the environment's steps
    every: int = 1000  # updates between evaluations, pictures and checkpoints; not in the paper
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_counts(self, "config.train")
        if self.updates % self.every:
            raise UsageError(f"config.train.every={self.every}: must divide config.train.updates={self.updates}")


# Settings that a resumed run may have other values of: they change nothing of what was done.
MAY_DIFFER = ("train.updates", "train.keep_checkpoints", "data.images")


@dataclass(frozen=True)
class EvalConfig:
    """chunks: of held-out sequences, the same at every evaluation; draws: of latents, for both bounds."""

    chunks: int = 256
    draws: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "config.evaluation")


BLOCKS = dict(data=DataConfig, model=StateSpaceConfig, train=TrainConfig, evaluation=EvalConfig)
USAGE = "experiments/environment_models/config.py:DATA,MODEL,PRESET"
EXAMPLE = "ball,sssm"  # the data and the model of which --help tells


def paper() -> ConfigDict:
    """Appendix A."""
    return ConfigDict(
        dict(
            seed=0,
            devices="1",  # or a number, or all: batches are split over them
            data=block(DataConfig()),
            model=block(StateSpaceConfig()),
            train=block(TrainConfig()),
            evaluation=block(EvalConfig()),
        )
    )


def cpu() -> ConfigDict:
    """Two CPU cores, minutes. Not in the paper: found by measuring, see docs/lab/2026-11-22-ball.md."""
    config = paper()
    config.model.update(channels=16, encoder_width=16, decoder_width=16, learning_rate=2e-3)
    config.train.update(updates=2000, batch=8, every=250)
    config.evaluation.update(chunks=128, draws=5)
    return config


def cpu_games() -> ConfigDict:
    """As `cpu`, for recorded games of reduced size: sprites are a few pixels, and latents that are dear at first stay
    empty. Not in the paper: found by measuring, see docs/lab/2026-11-22-mspacman.md.
    """
    config = cpu()
    config.model.update(contrast=16.0, latent_std=0.1, last_layer_scale=0.0, kl_anneal_target=0.8)
    config.train.update(updates=1600, every=400)
    return config


def cpu_grid() -> ConfigDict:
    """As `cpu`, for recorded grids of one pixel a cell, such as 15 x 19 or 9 x 11: a state has half of their sides, its
    rewards are below 256, and it begins as agents begin. Not in the paper: with half of the channels, or without a
    background, it is slow to find out what actions do, see docs/lab/2026-11-29-minipacman-model.md.
    """
    config = cpu()
    config.model.update(blocks=(2, 1), channels=32, encoder_width=32, decoder_width=32, pad_context=0.3)
    config.model.update(contrast=8.0, last_layer_scale=0.0)
    config.train.update(updates=6000, every=1000, batch=16, predicted=5)
    return config


PRESETS = dict(paper=paper, cpu=cpu, cpu_games=cpu_games, cpu_grid=cpu_grid)


def get_config(argument: str = "") -> ConfigDict:
    """The config of "data,model,preset"."""
    data, model, preset = (argument.split(",") + ["", ""])[:3]
    if not data or model not in KINDS or preset not in PRESETS or argument.count(",") != 2:
        raise UsageError(
            f"config {argument!r}: give <data>,<model>,<preset> with data ball, ball:drifting or a recorded folder, "
            f"model one of {', '.join(KINDS)} and preset one of {', '.join(PRESETS)}"
        )
    config = PRESETS[preset]()
    config.task = "ball:diffusing" if data == "ball" else data
    if not is_ball(data) and preset != "cpu_grid":
        config.model.reward_digits = 12  # not in the paper, which names no number: a ghost of MsPacman is up to 1600
    config.model.kind = model
    if model == "ar":
        config.model.pad_context = 0.0  # its states see actions too
    return config
