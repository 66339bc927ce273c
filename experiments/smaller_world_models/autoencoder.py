"""Fits the autoencoder alone to recorded random play of one game: what does it draw, under which likelihood?

    python -m experiments.smaller_world_models.autoencoder \\
        --config=experiments/smaller_world_models/config.py:Breakout,cpu --updates=2000 \\
        --config.model.likelihood=continuous_bernoulli --config.model.revive_below=0

Prints one JSON line of measurements on held-out images, the last fifth of what was recorded. `explained`: the share
of what moves, the images' variance about their mean, that the reconstructions' deviations from theirs explain.
`codes`: how many are used. `largest_logit`: of a pixel. `rewards`: how many random play was given.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import parts
from wmjax import replay
from wmjax.agents.mpc import make_random_actor
from wmjax.run import devices, population, talk
from wmjax.run import main as mains
from wmjax.run.collect import make_player, play_steps
from wmjax.run.timers import Timers
from wmjax.types import UsageError

CONFIG = config_flags.DEFINE_config_file("config", help_string="experiments/smaller_world_models/config.py:GAME,PRESET")
UPDATES = flags.DEFINE_integer("updates", 2000, "of the autoencoder, rounded to a multiple of 20", lower_bound=20)
DECISIONS = flags.DEFINE_integer("decisions", 6000, "recorded under random actions", lower_bound=1000)
IMAGES = 1000  # held-out ones that are measured, at most


def main(argv):
    """Records, fits and measures once. argv: the command line."""
    mains.parse_flags(argv, __name__, configs)
    if CONFIG.value is None:
        raise UsageError("give --config=experiments/smaller_world_models/config.py:<game>,<preset>")
    mains.use_jax()
    chosen = parts.settings(CONFIG.value)
    spec, _ = population.first_step(chosen.members, 1, chosen.env)
    agent = parts.make_agent(chosen, spec)
    env = population.join_envs(chosen.members, 1, chosen.env)
    world_keys, collect_keys, train_keys, measure_keys = population.member_keys(chosen.members, 4)

    player = make_player(make_random_actor(spec.action, chosen.train.hold), 1, explore=True)
    step, params = env.reset(), np.zeros(len(chosen.members))  # chance has no parameters
    steps = play_steps(env, player, params, collect_keys, Timers(), step=step, count=DECISIONS.value)
    steps = parts.newest(steps, chosen.train.frames)
    learnt = jax.tree.map(lambda x: x[: 4 * len(x) // 5], steps)
    memory = replay.init(len(learnt.reward), 1, jax.tree.map(lambda x: x[0], learnt))
    memory = jax.tree.map(lambda x: x[None], replay.extend(memory, learnt))  # a population of one

    world = jax.vmap(agent.learner.init)(world_keys)
    warm_up = parts.make_warm_up(agent, chosen.train, place=devices.replicated(devices.make_mesh("1")))
    count, rate = parts.per_point(UPDATES.value), np.float32(chosen.train.warmup_rate)
    for point in range(parts.BINS):
        world, sums = warm_up(world, memory, train_keys, point, 0, count, rate)
    params = jax.tree.map(lambda x: x[0], world.params)
    held_out = jax.tree.map(lambda x: np.swapaxes(x[4 * len(x) // 5 :][:IMAGES], 0, 1), steps)
    images = parts.stacked(held_out, chosen.train.frames).obs[0]
    row = dict(task=chosen.members[0].task, likelihood=chosen.model.likelihood, revive=chosen.model.revive_below)
    row |= dict(seed=chosen.members[0].seed, updates=parts.BINS * count, rewards=int((steps.reward != 0).sum()))
    row |= {"train_elbo": float(sums["elbo"][0]) / count} | measure(agent, params, measure_keys[0], images)
    talk.say(json.dumps({name: round(x, 3) if isinstance(x, float) else x for name, x in row.items()}))


def measure(agent, params, key, images):
    """What the autoencoder makes of images, uint8 [N, X, Y, C]: dict(explained, codes, largest_logit)."""

    def reconstruct(params, obs):
        state = parts.begin(agent, params, key, obs)
        logits = agent.model.decode(params, state)
        return agent.codes(params, state), agent.image(logits), jnp.abs(logits).max()

    codes, drawn, largest = jax.device_get(jax.jit(reconstruct)(params, images))
    true = images / 255
    moves, drawn = true - true.mean(0), drawn - drawn.mean(0)
    explained = 1 - np.square(moves - drawn).sum() / np.square(moves).sum()
    return dict(explained=float(explained), codes=len(np.unique(codes)), largest_logit=float(largest))


if __name__ == "__main__":
    sys.exit(mains.run(main, sys.argv))
