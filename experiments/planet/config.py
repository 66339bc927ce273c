"""PlaNet: Learning Latent Dynamics for Planning from Pixels (Hafner et al. 2019).

    python -m experiments.planet --config=experiments/planet/config.py:cheetah_run,cpu --workdir=runs/a

Presets: `paper` is appendix A; `cpu` learns cheetah_run in minutes on two cores. The task is a dm_control suite task,
or a full environment name such as fake:counter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ml_collections import ConfigDict, config_dict

from experiments.presets import block, check_counts, split, tasks
from wmjax.agents.mpc import MPCConfig
from wmjax.envs import dmc
from wmjax.models import reward_only, rssm, video
from wmjax.types import UsageError

PLANNERS = ("cem", "random_shooting")
COLLECTORS = ("planner", "random")
UPDATES_PER_DECISION = 0.4  # in `cpu`: the paper's 100 an episode of cheetah_run, for tasks with other action repeats


@dataclass(frozen=True)
class TrainConfig:
    """Algorithm 1. Defaults: appendix A."""

    tasks: tuple[str, ...] = ()  # that every agent plays beside its own (Fig. 6), such as ("reacher_easy",)
    episodes: int = 1000  # collected in all, of all tasks, seed episodes counted in (Fig. 4)
    seed_episodes: int = 5  # S, of each task, under random actions
    updates_per_episode: int = 100  # C, for every collected episode
    batch: int = 50  # B
    chunk: int = 50  # L
    within_episodes: bool = True  # chunks inside one episode each, as the authors draw them
    replay_rows: int = 300_000  # of all environments together; not in the paper, which keeps everything
    num_envs: int = 1  # episodes collected at once
    average_decay: float = 0.0  # of the running average of parameters that acts; 0: the newest act, as in the paper
    overlap: bool = False  # not in the paper: collect while the updates run, with parameters that are one phase older
    collect: str = "planner"  # planner, or random: Fig. 5's random collection
    checkpoint_every: int = 5  # episodes
    keep_checkpoints: int = 2

    @property
    def capacity(self) -> int:
        """Rows of each environment in the replay."""
        return self.replay_rows // self.num_envs

    def __post_init__(self) -> None:
        if self.collect not in COLLECTORS:
            raise UsageError(f"config.train.collect={self.collect!r}: choose one of {', '.join(COLLECTORS)}")
        if not 0 <= self.average_decay < 1:
            raise UsageError(f"config.train.average_decay={self.average_decay}: must be at least 0 and below 1")
        check_counts(self, "config.train")
        if self.episodes <= self.seed_episodes * (1 + len(self.tasks)):
            each = f" for each of {1 + len(self.tasks)} tasks" if self.tasks else ""
            raise UsageError(
                f"config.train.episodes={self.episodes}: must be above "
                f"config.train.seed_episodes={self.seed_episodes}{each}, or nothing is trained"
            )


# Settings that a resumed run may have other values of: they change nothing of what was done.
MAY_DIFFER = (
    "train.episodes",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "env.workers",
    "env.seconds",
    "env.failures",
)


@dataclass(frozen=True)
class EvalConfig:
    """every: collected episodes between evaluations; episodes: played at each, at once, without exploration noise."""

    every: int = 25
    episodes: int = 10  # appendix: 10 trajectories
    keep: bool = False  # whether what is played stays, in evaluation/, for experiments.planet.offline
    model_error: bool = False  # whether the model is compared with the simulator as the planner uses it; physics only

    def __post_init__(self) -> None:
        check_counts(self, "config.evaluation")


@dataclass(frozen=True)
class PlannerConfig:
    """name: cem, or random_shooting (Fig. 5), which has neither iterations nor elites. Defaults: appendix A."""

    name: str = "cem"
    horizon: int = 12  # H
    iterations: int = 10  # I
    candidates: int = 1000  # J
    elites: int = 100  # K
    action: str = "mean"  # of cem: the belief's mean, or best, the best sample

    def __post_init__(self) -> None:
        if self.name not in PLANNERS:
            raise UsageError(f"config.planner.name={self.name!r}: choose one of {', '.join(PLANNERS)}")
        check_counts(self, "config.planner")


class Family(NamedTuple):
    """A family of models that PlaNet's loop trains."""

    config: type  # the dataclass of config.model
    make: Callable  # (config, env_spec) -> (WorldModel, Learner)


MODELS = dict(  # by config.family
    rssm=Family(rssm.RSSMConfig, rssm.make),
    video=Family(video.VideoConfig, video.make),
    reward_only=Family(reward_only.RewardOnlyConfig, reward_only.make),
)
FAMILY = "dmc"  # of tasks that name none
BLOCKS = dict(model=rssm.RSSMConfig, planner=PlannerConfig, agent=MPCConfig, train=TrainConfig, evaluation=EvalConfig)
EXAMPLE = "cheetah_run"  # the task of which --help tells
USAGE = "experiments/planet/config.py:TASK,PRESET"


def paper() -> ConfigDict:
    """Appendix A."""
    return ConfigDict(
        dict(
            seed=0,
            population=1,  # seeds trained in one program: seed, seed + 1, ...; each as a run of its own would
            family="rssm",  # of the model: whose settings config.model holds
            devices="1",  # or a number, or all: environment rows, replay and batches are split over them
            env=dict(
                size=64,
                action_repeat=config_dict.placeholder(int),  # none: the paper's for its tasks
                episode_steps=config_dict.placeholder(int),  # none: the task's own time limit
            ),
            model=block(rssm.RSSMConfig()),
            planner=block(PlannerConfig()),
            agent=block(MPCConfig()),
            train=block(TrainConfig()),
            evaluation=block(EvalConfig()),
        )
    )


def cpu() -> ConfigDict:
    """Two CPU cores, fifteen minutes of cheetah_run. Not in the paper: see docs/lab/2026-11-21-cheetah-run-cpu.md."""
    config = paper()
    config.env.size = 32
    config.model.update(
        deterministic=128,
        hidden=128,
        reward_units=128,
        encoder_widths=(16, 32, 64),
        decoder_widths=(32, 16),
        decoder_hidden=256,
        free_nats=1.0,
        kl_scale=0.1,  # at 1 the beliefs hold less of the images
        prior_scale=10.0,  # so that the prior learns as at a kl_scale of 1: docs/lab/2026-12-01-kl-balancing.md
        image_scale=4.0,  # a quarter of the pixels
        reward_scale=100.0,  # 10 learns more slowly: the reward's share of the loss is small
    )
    config.planner.update(iterations=4, candidates=64, elites=8)
    config.train.update(episodes=100, batch=16, chunk=20, average_decay=0.99, overlap=True)
    config.evaluation.update(every=20, episodes=5)
    return config


PRESETS = dict(paper=paper, cpu=cpu)


def get_config(argument: str = "") -> ConfigDict:
    """The config of "task,preset"."""
    task, preset = split(argument, PRESETS, "task")
    config = PRESETS[preset]()
    config.task = tasks(task, FAMILY)
    family, _, first = config.task.partition("+")[0].partition(":")
    if family == "physics":  # MuJoCo's own state beside images that dm_control draws, see wmjax/envs/physics.py
        config.env.update(observe="image+state", shadow_size=256 if preset == "cpu" else config_dict.placeholder(int))
    if family in ("gym", "py"):  # a user's own, see wmjax/envs/own.py
        config.env.update(grey=False, image_key="pixels", vector_keys=(), workers=1, seconds=0.0, failures=0)
    if family == FAMILY:
        config.env.update(shadow_size=config_dict.placeholder(int), supersample=config_dict.placeholder(int))
        if preset == "cpu":  # half the time of a frame that is drawn in software, see wmjax/envs/dmc.py
            config.env.update(shadow_size=256, supersample=2)
    if preset == "cpu" and family in (FAMILY, "physics"):
        decisions = dmc.EPISODE_STEPS / dmc.ACTION_REPEAT.get(first, dmc.OTHER_ACTION_REPEAT)
        config.train.updates_per_episode = round(UPDATES_PER_DECISION * decisions)
    return config
