"""The parts of a PlaNet run, made from its config: shared by training (`__main__`) and `evaluate`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.planet.config import EvalConfig, PlannerConfig, TrainConfig
from wmjax import envs, replay
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.models import rssm
from wmjax.ops import image_bits
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.run.main import build
from wmjax.run.predict import open_loop_images
from wmjax.run.timers import Timers
from wmjax.run.video import strip, tile, write_png, write_video
from wmjax.types import Actor, Learner, UsageError, WorldModel

CONTEXT, PREDICTED = 5, 50  # frames seen, and in all, of the open-loop predictions (Fig. 10)
FRAMES_A_SECOND = 25  # of videos: cheetah's own time at action repeat 4
EVALUATION_SEED = 1_000_000  # added to the run's seed: the evaluation pool never sees a training episode


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    seed: int
    task: str
    env: dict
    model: rssm.RSSMConfig
    planner: PlannerConfig
    agent: MPCConfig
    train: TrainConfig
    evaluation: EvalConfig


class Agent(NamedTuple):
    model: WorldModel
    learner: Learner
    actor: Actor


def settings(config):
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks = dict(config)
    if type(blocks["seed"]) is not int or not 0 <= blocks["seed"] < EVALUATION_SEED:
        raise UsageError(f"config.seed={blocks['seed']!r}: must be an integer from 0 to {EVALUATION_SEED - 1}")
    classes = dict(model=rssm.RSSMConfig, planner=PlannerConfig, agent=MPCConfig, train=TrainConfig)
    classes["evaluation"] = EvalConfig
    built = {name: build(cls, blocks[name], name) for name, cls in classes.items()}
    options = {name: value for name, value in dict(blocks["env"]).items() if value is not None}
    return Settings(seed=blocks["seed"], task=blocks["task"], env=options, **built)


def check_lengths(train, env_spec, capacity):
    """Raises UsageError where chunks, episodes and the replay cannot fit each other."""
    if env_spec.time_limit is not None:
        check_rows(train, env_spec.time_limit + 1)
    longest = max(train.chunk, (env_spec.time_limit or 0) + 1)
    if capacity < longest:
        raise UsageError(
            f"config.train.replay_rows={train.replay_rows}: with {train.num_envs} environments at least "
            f"{longest * train.num_envs}, for one episode and one chunk each"
        )


def check_rows(train, rows):
    """Raises UsageError unless a chunk fits an episode of `rows` rows."""
    if train.chunk > rows:
        raise UsageError(f"config.train.chunk={train.chunk}: an episode has only {rows} rows")


def make_agent(chosen, env_spec):
    """Model, learner and actor. chosen: Settings."""
    model, learner = rssm.make(chosen.model, env_spec)
    planner = chosen.planner
    if planner.name == "cem":
        cem = CEMConfig(planner.horizon, planner.iterations, planner.candidates, planner.elites)
        planner = make_cem(model, env_spec.action, cem)
    else:
        shooting = ShootingConfig(planner.horizon, planner.candidates)
        planner = make_random_shooting(model, env_spec.action, shooting)
    return Agent(model, learner, make_actor(model, planner, env_spec.action, chosen.agent))


def average(acting, state, decay):
    """The parameters that act: an exponential average over updates, the newest ones alone when decay is 0.

    Early on it averages over a tenth of the updates so far, so that the initial parameters are soon forgotten.
    """
    updates = state.updates.astype(jnp.float32)
    keep = jnp.minimum(decay, updates / (updates + 10.0))
    return jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, acting, state.params)


def make_train_phase(learner, train, updates):
    """One dispatch of many updates: a jitted function (state, acting, memory, key) -> ((state, acting), metrics).

    acting: the running average of the learner's parameters, which acts. Only the learner's state is donated: the acting
    parameters may be in use while the phase runs. train: TrainConfig; metrics have a leading axis [updates].
    """
    draw = replay.sample_within_episodes if train.within_episodes else replay.sample

    @functools.partial(jax.jit, donate_argnums=0)
    def train_phase(state, acting, memory, key):
        def update(carry, key):
            state, acting = carry
            sample_key, update_key = jax.random.split(key)
            state, metrics = learner.update(state, update_key, draw(memory, sample_key, train.batch, train.chunk))
            return (state, average(acting, state, train.average_decay)), metrics

        return jax.lax.scan(update, (state, acting), jax.random.split(key, updates))

    return train_phase


def make_evaluation_env(chosen):
    """The pool that evaluations play in, one row an episode."""
    return envs.make(chosen.task, chosen.evaluation.episodes, chosen.seed + EVALUATION_SEED, **chosen.env)


def make_predict(agent, env_spec):
    """A jitted function (params, key, steps [T, 1]) -> uint8 [T, X, Y, C]: open-loop images of one episode."""

    def predict(params, key, steps):
        images = open_loop_images(agent.model, params, key, steps, action_spec=env_spec.action, context=CONTEXT)
        return image_bits.to_uint8(images[:, 0])

    return jax.jit(predict)


def evaluate(folder, name, play, predict, params, key):
    """Plays one episode in every row of the evaluation pool and shows what was seen and what was predicted.

    play(key, timers) -> (steps, returns), as run.collect.play_episodes; predict: from `make_predict`.
    Writes videos/<name>.mp4, all rows side by side, and videos/open_loop_<name>.png of the first row.
    Returns: metrics, the return's mean, standard deviation and each row's value.
    """
    play_key, predict_key = jax.random.split(key)
    steps, returns = play(play_key, Timers())
    videos = folder / "videos"
    videos.mkdir(exist_ok=True)
    write_video(videos / f"{name}.mp4", tile(np.swapaxes(steps.obs, 0, 1)), fps=FRAMES_A_SECOND)
    first = jax.tree.map(lambda x: x[:PREDICTED, :1], steps)
    imagined = np.asarray(predict(params, predict_key, first))
    write_png(videos / f"open_loop_{name}.png", strip(first.obs[:, 0], imagined, context=CONTEXT))
    each = {f"eval/return_{i}": value for i, value in enumerate(returns)}
    return {"eval/return_mean": returns.mean(), "eval/return_std": returns.std()} | each
