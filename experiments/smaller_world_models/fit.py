"""Fits the world model to recorded random play of one game: what does it draw and predict, under which settings?

    python -m experiments.smaller_world_models.fit \\
        --config=experiments/smaller_world_models/config.py:Breakout,cpu --updates=2000 \\
        --config.model.likelihood=bernoulli

Random play is recorded first; its last fifth is held out. Then the autoencoder alone is trained, and with --points the
whole model as in a run's first iteration, up to so many of the 20 points of that phase. Prints a JSON line after the
autoencoder and after every point:

    explained      share of what moves, the held-out images' variance about their mean, that the reconstructions'
                   deviations from theirs explain
    codes          how many are used; largest_logit: of a pixel; rewards: how many random play was given
    latent_loss, reward_loss       of the training
    one_step/*, open_loop/*        as of a run's held-out episodes, see `predictions.make_prediction_metrics`
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.presets import config_flag
from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import phases, predictions
from wmjax import console, imagine, replay
from wmjax.agents.random import make_random_actor
from wmjax.run import cli, devices, pools
from wmjax.run.collect import make_player, play_steps
from wmjax.run.members import alone, member, member_keys
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Array, EnvSpec, Params, Step, UsageError

IMAGES = 1000  # held-out ones that are reconstructed, at most


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    config_flag(values, argv, configs.USAGE)
    cli.int_flag(values, "updates", 2000, "of the autoencoder alone, rounded to a multiple of 20", 20)
    cli.int_flag(values, "decisions", 6000, "recorded", 1000, 10**6)
    cli.int_flag(values, "points", 0, "of the fit, after the autoencoder", 0, phases.BINS)


def main(argv: list[str]) -> None:
    """Records, fits and measures once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__, configs)
    if options.config is None:
        raise UsageError(f"give --config={configs.USAGE}")
    cli.use_jax()
    settings = agents.read_settings(options.config)
    if len(settings.members) > 1:
        raise UsageError("config.task, config.population: one game and one seed are fitted at a time")
    if str(settings.devices) != "1":
        raise UsageError(f"config.devices={settings.devices}: a model is fitted on 1")
    train, (task, seed) = settings.train, settings.members[0]
    spec, _ = pools.first_step(settings.members, 1, settings.env)
    agent = agents.make_agent(settings, spec)
    world_keys, collect_keys, warm_keys, fit_keys, measure_keys = member_keys(settings.members, 5)

    steps = phases.newest(record(options, settings, spec, collect_keys), train.frames)
    learnt, held_out = (jax.tree.map(lambda x, part=part: x[part], steps) for part in split(len(steps.reward)))
    agents.check_chunk(train, agents.longest(learnt.is_first))
    memory = replay.init(len(learnt.reward), 1, jax.tree.map(lambda x: x[0], learnt))
    memory = alone(replay.extend(memory, learnt))
    mesh = devices.make_mesh("1")
    warm_up, fit = phases.make_warm_up(agent, train, mesh), phases.make_fit(agent, train, mesh)
    measured = predictions.make_prediction_metrics(agent, spec, train.frames)
    seen = as_seen(held_out, train.frames)
    windows, images = predictions.windows(seen), seen.obs[:IMAGES, 0]
    told = dict(task=task, seed=seed, likelihood=settings.model.likelihood, rewards=int((steps.reward != 0).sum()))

    def show(updates: dict[str, Any], found: Mapping[str, Any]) -> None:
        row = told | updates | {name: round(float(x), 4) for name, x in found.items()}
        console.say(json.dumps(row))

    world = jax.vmap(agent.learner.init)(world_keys)
    count, rate = phases.per_point(options.updates), np.float32(train.warmup_rate)
    for point in range(phases.BINS):
        world, sums = warm_up(world, memory, warm_keys, point, 0, count, rate)
    elbo = dict(train_elbo=sums["elbo"][0] / count)
    show(dict(updates=phases.BINS * count), elbo | measure(agent, member(world.params, 0), measure_keys[0], images))

    curve = phases.curve("fit", train, 0, kept=len(learnt.reward))
    for point in range(options.points):
        world, sums = fit(world, memory, fit_keys, point, 0, curve.updates, *curve.numbers)
        losses = {name: sums[name][0] / curve.updates for name in ("latent_loss", "reward_loss")}
        predicted = measured(member(world.params, 0), measure_keys[0], member(memory, 0), windows)
        show(dict(dynamics_updates=(point + 1) * curve.updates * curve.each), losses | predicted)


def record(options: Any, settings: agents.Settings, spec: EnvSpec, keys: Array) -> Step:
    """Random play of one game: Step [--decisions, 1] of numpy arrays."""
    env = pools.join_envs(settings.members, 1, settings.env)
    player = make_player(make_random_actor(spec.action, settings.train.hold), 1, explore=True)
    params = np.zeros(len(settings.members))  # chance has no parameters
    step, carry = env.reset(), player.begin(params)
    return play_steps(env, player, params, keys, Stopwatch(), step=step, carry=carry, count=options.decisions).steps


def split(rows: int) -> tuple[slice, slice]:
    """(slice of what is trained on, slice of the last fifth)."""
    return slice(4 * rows // 5), slice(4 * rows // 5, rows)


def as_seen(steps: Step, count: int) -> Step:
    """Step [T, E] of single frames -> numpy Step [T - count + 1, E] whose images are stacks of `count`."""
    rows_first = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), steps)
    return jax.tree.map(lambda x: np.asarray(x).swapaxes(0, 1), phases.stacked(rows_first, count))


def measure(agent: agents.Agent, params: Params, key: Array, images: np.ndarray) -> dict[str, Any]:
    """What the autoencoder makes of images, uint8 [N, X, Y, C]: dict(explained, codes, largest_logit)."""

    decode: Any = agent.model.decode  # not None: a VQ-VAE has pixels

    def reconstruct(params: Params, obs: Any) -> tuple[Array, Array, Array]:
        state = imagine.begin(agent.model, params, key, obs, agent.action_spec)
        logits = decode(params, state)
        return agent.codes(params, state), agent.image(logits), jnp.abs(logits).max()

    codes, drawn, largest = jax.device_get(jax.jit(reconstruct)(params, images))
    true = images / 255
    moves, drawn = true - true.mean(0), drawn - drawn.mean(0)
    explained = 1 - np.square(moves - drawn).sum() / np.square(moves).sum()
    return dict(explained=explained, codes=len(np.unique(codes)), largest_logit=largest)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
