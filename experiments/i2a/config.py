"""Agents that query a learned model (Buesing et al. 2018, sections 3 and 4.2): Imagination-Augmented Agents.

    python -m experiments.i2a --config=experiments/i2a/config.py:minipacman:regular,uniform,cpu --workdir=runs/a \
        --config.model_run=runs/c

Environments: minipacman:regular, hunt, avoid, ambush and rush, or an Atari game. Agents: model_free; copy, whose
imagined states are all the present one; untrained, whose model has first weights; uniform, distilled and ltq (learning
to query), by their rollout policies; pixels, distilled with rendered imaginations; modulation. All but model_free ask
the model of a finished run of `experiments.environment_models`, or "simulator", the environment itself; untrained, ltq
and modulation the former alone. Presets: `paper`; `cpu`, MiniPacman on two cores; `cpu_games`, Atari games at 80 x 64.
"""  # noqa: E501

from dataclasses import dataclass

from ml_collections import ConfigDict, config_dict

from experiments.presets import block, check_counts, tasks
from wmjax.agents.i2a import TRAINED, I2AConfig
from wmjax.types import UsageError


@dataclass(frozen=True)
class TrainConfig:
    """None of it is in the paper but the total, 5e8 frames of four a decision."""

    updates: int = 195_500  # 5.005e8 frames
    rows: int = 32  # E, environments
    decisions: int = 20  # n of an update, in every environment
    every: int = 500  # updates between lines of metrics and checkpoints
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_counts(self, "config.train")
        if self.rows > 1024:
            raise UsageError(f"config.train.rows={self.rows}: at most 1024")
        if self.updates % self.every:
            raise UsageError(f"config.train.every={self.every}: must divide config.train.updates={self.updates}")


# Settings that a resumed run may have other values of: they change nothing of what was done.
MAY_DIFFER = ("train.updates", "train.keep_checkpoints", "model_run")


@dataclass(frozen=True)
class EvalConfig:
    """episodes: played by the newest agent, in environments of their own; every: lines of metrics between them."""

    episodes: int = 16
    every: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "config.evaluation")


BLOCKS = dict(agent=I2AConfig, train=TrainConfig, evaluation=EvalConfig)
USAGE = "experiments/i2a/config.py:ENVIRONMENT,AGENT,PRESET"
EXAMPLE = "minipacman:regular,uniform"  # of which --help tells

MODEL_FREE = dict(rollout_policy="none")
UNIFORM = dict(rollout_policy="uniform")
DISTILLED = dict(rollout_policy="distilled")
LEARNED = dict(rollout_policy="learned")
AGENTS: dict[str, dict] = dict(  # copy and untrained differ from uniform in their models alone
    model_free=MODEL_FREE,
    copy=UNIFORM,
    untrained=UNIFORM,
    uniform=UNIFORM,
    distilled=DISTILLED,
    ltq=LEARNED,
    pixels=DISTILLED | dict(pixels=True),
    modulation=UNIFORM | dict(modulated=True),
)


def options(task: str) -> ConfigDict:
    """Options of `wmjax.envs.make` for a family's environments: games as in section 4, with five actions."""
    limit = config_dict.placeholder(int)
    families = dict(
        minipacman=dict(maze="15x19", episode_steps=1000),
        atari=dict(size=(210, 160), crop=10, colour=True, actions=(0, 2, 3, 4, 5), episode_steps=limit),
    )
    return ConfigDict(families.get(task.partition(":")[0], {}))


def paper(task: str) -> ConfigDict:
    """Section 4.2 and appendix B.2; what they leave open: the dataclasses."""
    return ConfigDict(
        dict(
            seed=0,
            devices="1",  # or a number, or all: environment rows are split over them
            model_run="",
            env=options(task),
            agent=block(I2AConfig()),
            train=block(TrainConfig()),
            evaluation=block(EvalConfig()),
        )
    )


def small(config: ConfigDict) -> ConfigDict:
    """Networks of two cores. Not in the paper."""
    config.agent.update(kernels=(3, 3), strides=(1, 2), widths=(16, 16), units=256)
    config.agent.update(encoder_kernel=3, encoder_strided=(16,), encoder_widths=(8,), encoder_units=64)
    config.agent.update(lstm_units=64, policy_widths=(8, 8), policy_units=64)
    config.train.update(rows=64, decisions=5, every=250)
    return config


def cpu(task: str) -> ConfigDict:
    """MiniPacman on two cores, minutes. Not in the paper: docs/lab/2026-12-01-minipacman-tuned.md."""
    config = small(paper(task))
    config.agent.update(horizon=1, encoder_strided=(16, 16))
    config.train.update(updates=2500)  # 0.8 million frames
    if task == "minipacman:regular":
        config.agent.update(learning_rate=2.8e-3, discount=0.95, reward_scale=0.3)
    else:
        config.agent.update(learning_rate=1e-3, entropy=0.003, reward_scale=0.1)
    return config


def cpu_games(task: str) -> ConfigDict:
    """Atari games at 80 x 64 on two cores. Not in the paper."""
    config = small(paper(task))
    config.agent.update(kernels=(4, 4, 3), strides=(2, 2, 2), widths=(8, 16, 32))
    config.agent.update(horizon=2, reward_scale=0.01)
    config.train.update(updates=7500)  # 9.6 million frames
    if task.startswith("atari:"):
        config.env.update(size=(84, 64), crop=4)
    return config


PRESETS = dict(paper=paper, cpu=cpu, cpu_games=cpu_games)


def get_config(argument: str = "") -> ConfigDict:
    """The config of "environment,agent,preset"."""
    task, agent, preset = (argument.split(",") + ["", ""])[:3]
    if not task or agent not in AGENTS or preset not in PRESETS or argument.count(",") != 2:
        raise UsageError(
            f"config {argument!r}: give <environment>,<agent>,<preset> with an environment such as minipacman:hunt or "
            f"MsPacman, agent one of {', '.join(AGENTS)} and preset one of {', '.join(PRESETS)}"
        )
    task = tasks(task, "atari")
    config = PRESETS[preset](task)
    config.task, config.kind = task, agent
    config.agent.update(AGENTS[agent])
    if agent == "pixels" and not config.agent.encoder_strided:
        config.agent.encoder_strided = (16, 32, 64)  # to the size of a state; the paper: "adding convolutions"
    if AGENTS[agent]["rollout_policy"] in TRAINED:
        config.agent.horizon = max(2, config.agent.horizon)  # the first actions are given
    return config
