"""Trade-offs of image prediction in visual model-based reinforcement learning (Babaeizadeh et al. 2020).

    python -m experiments.planet --config=experiments/trade_offs/config.py:cheetah_run,lt_or,cpu --workdir=runs/a

Designs: where dynamics run, in a latent space (lt) or in images (ot), and what rewards are read from, latents (lr) or
images (or). `r` predicts rewards alone, as do `r_conv` and `r_ll` (Fig. 10). Presets: `paper` is appendix B; `cpu` is
for two cores: minutes for designs in a latent space, far longer for those in images; `smoke` learns nothing. The task
is one of PlaNet's seven, or fake:counter.
"""

import dataclasses
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.planet import config as planet
from experiments.presets import block
from wmjax.envs import dmc
from wmjax.envs.check import check_name
from wmjax.types import UsageError


class Design(NamedTuple):
    """A design of models as settings of PlaNet's main."""

    family: str  # of models
    model: dict[str, Any]  # settings of its config
    batch: int  # Tables 11 to 13
    shown: int  # rows of a chunk beyond the horizon


DESIGNS = dict(
    r=Design("reward_only", dict(kind="recurrent"), 32, 1),
    ot_or=Design("video", dict(kind="ot_or"), 64, 2),
    ot_lr=Design("video", dict(kind="ot_lr"), 64, 2),
    lt_lr=Design("rssm", {}, 50, 0),
    lt_or=Design("rssm", dict(reward_from="images"), 50, 0),
    r_conv=Design("reward_only", dict(kind="conv"), 32, 1),
    r_ll=Design("rssm", dict(image_side=0), 50, 0),
)
# Of a family's config, by preset; of rssm beside PlaNet's. `paper`: Table 12.
SIZES: dict[str, dict[str, dict[str, Any]]] = dict(
    paper=dict(
        rssm=dict(hidden=300, reward_layers=3, reward_units=300, adam_epsilon=1e-3, image_bits=8),
    ),
    cpu=dict(
        rssm=dict(prior_scale=1.0),  # the loss of PlaNet's paper, as in `paper`
        video=dict(filters_divisor=8, sampling_updates=1000, adam_epsilon=1e-8),
    ),
    smoke=dict(
        rssm=dict(
            stochastic=4,
            deterministic=16,
            hidden=16,
            reward_units=16,
            encoder_widths=(4, 8),
            decoder_widths=(8,),
            decoder_hidden=16,
            reward_widths=(4, 4),
        ),
        video=dict(filters_divisor=32, reward_widths=(4, 4), sampling_updates=20),
    ),
)
HORIZONS = ("horizon", "reward_horizon")  # settings of models that are the planner's horizon
USAGE = "experiments/trade_offs/config.py:TASK,DESIGN,PRESET"


def paper(config: ConfigDict) -> None:
    """Appendix B; 4.1: the action repeat is 4 on every task."""
    config.env.action_repeat = 4
    config.planner.update(candidates=128, elites=12, action="best")  # best: authors' code, the paper does not say
    config.train.update(episodes=1000, seed_episodes=5, updates_per_episode=100)
    config.evaluation.update(every=10, episodes=1)


def cpu(config: ConfigDict) -> None:
    """Two CPU cores: small images, half episodes, one small planner for all designs. Not in the paper."""
    config.env.update(action_repeat=4, episode_steps=500)
    config.planner.update(horizon=8, iterations=3, candidates=32, elites=6)
    config.train.update(episodes=24, updates_per_episode=100, batch=16)
    config.evaluation.update(every=12, episodes=3)


def smoke(config: ConfigDict) -> None:
    """For tests: nothing is learned."""
    config.env.update(size=16)
    config.planner.update(horizon=4, iterations=2, candidates=8, elites=2)
    config.train.update(episodes=6, seed_episodes=2, updates_per_episode=4, batch=4, replay_rows=200)
    config.evaluation.update(every=2, episodes=2)


PRESETS = dict(paper=paper, cpu=cpu, smoke=smoke)
BASES = dict(paper="paper", cpu="cpu", smoke="cpu")  # PlaNet's presets that they change


def get_config(argument: str = "") -> ConfigDict:
    """The config of "task,design,preset"."""
    task, design, preset = (argument.split(",") + ["", ""])[:3]
    if not task or argument.count(",") != 2:
        raise UsageError(f"config {argument!r}: give <task>,<design>,<preset>")
    check_name("design", design, DESIGNS)
    check_name("preset", preset, PRESETS)
    if ":" not in task:
        check_name("task", task, dmc.ACTION_REPEAT)
    config = planet.get_config(f"{task if ':' in task else f'physics:{task}'},{BASES[preset]}")
    PRESETS[preset](config)
    family, settings, batch, shown = DESIGNS[design]
    model = planet.MODELS[family].config
    sizes = (config.model.to_dict() if family == "rssm" else {}) | SIZES[preset].get(family, {})
    sizes |= {field.name: config.planner.horizon for field in dataclasses.fields(model) if field.name in HORIZONS}
    config.family, config.model = family, block(model(**sizes | settings))
    config.train.chunk = config.planner.horizon + shown
    if preset == "paper":
        config.train.batch = batch
    config.evaluation.update(keep=True, model_error=config.task.startswith("physics:"))
    return config
