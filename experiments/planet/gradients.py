"""What the scale of the reward's loss does: Adam's steps in the reward head, the reward's gradient in the GRU.

    python -m experiments.planet.gradients --config=experiments/planet/config.py:cheetah_run,paper \\
        --config.train.batch=10 --config.train.chunk=20 --updates=16

Adam moves a weight by the rate times mean / (sqrt(square) + epsilon) of its gradients: by up to the rate where they are
far above epsilon, by next to nothing where they are below. Trains the config's model on random episodes once for every
scale and prints a table, of means over its updates: the step of each kernel of the head, in rates, and the norm of the
reward's gradient in the GRU, in norms of the image's there.
"""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.planet import config as configs
from experiments.planet.agent import check_chunk, make_agent, read_settings
from experiments.presets import config_flag
from wmjax import console, envs, replay
from wmjax.agents.random import make_random_actor
from wmjax.envs.check import check_name
from wmjax.models.rssm.learner import make_optimizer, model_loss
from wmjax.run import cli
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Array, Params, UsageError

SCALES = (1.0, 10.0, 100.0)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    config_flag(values, argv, configs.USAGE)
    cli.int_flag(values, "episodes", 4, "episodes of random actions to train on", 1)
    cli.int_flag(values, "updates", 16, "updates at each scale", 1)


def main(argv: list[str]) -> None:
    """Prints the table. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__, configs)
    if options.config is None:
        raise UsageError(f"give --config={configs.USAGE}")
    cli.use_jax()
    settings = read_settings(options.config)
    check_name("config.family", settings.family, ["rssm"])  # whose loss is taken apart here
    if len(settings.members) > 1:
        raise UsageError("config.task, config.population: one task and one seed are looked at")
    task, seed = settings.members[0]
    env = envs.make(task, options.episodes, seed, **settings.env)
    agent = make_agent(settings, env.spec)
    play_key, init_key, train_key = jax.random.split(jax.random.key(seed), 3)
    player = make_player(make_random_actor(env.spec.action), options.episodes, explore=True)
    steps, _ = play_episodes(env, player, jnp.zeros(1), play_key[None], Stopwatch())
    memory = replay.init(len(steps.reward), options.episodes, jax.tree.map(lambda x: x[0], steps))
    memory = replay.extend(memory, steps)
    check_chunk(settings.train, alone(memory))
    optimizer = make_optimizer(settings.model)

    @functools.partial(jax.jit, static_argnums=(3, 4, 5))  # a config checks its scales
    def gradient(params: Params, memory: replay.Replay, key: Array, image: float, reward: float, kl: float) -> Params:
        """Of the loss with these scales, on a batch of this key."""
        sample_key, loss_key = jax.random.split(key)
        batch = replay.sample_within_episodes(memory, sample_key, settings.train.batch, settings.train.chunk)
        scaled = dataclasses.replace(settings.model, image_scale=image, reward_scale=reward, kl_scale=kl)
        loss = jax.grad(model_loss, argnums=3, has_aux=True)
        return loss(agent.model, scaled, env.spec.action, params, loss_key, batch)[0]

    update = jax.jit(optimizer.update)
    image, kl = settings.model.image_scale, settings.model.kl_scale
    console.say("| reward scale | head's steps, kernel by kernel | reward's gradient in the GRU |\n|---|---|---|")
    for scale in SCALES:
        params = agent.learner.init(init_key).params
        opt_state, heads, shares = optimizer.init(params), [], []
        for i in range(options.updates):
            batch = params, memory, jax.random.fold_in(train_key, i)
            changes, opt_state = update(gradient(*batch, image, scale, kl), opt_state, params)
            heads.append(mean_steps(changes["reward"], settings.model.learning_rate))
            if i % 4 == 0:
                ours, others = gradient(*batch, 0.0, 1.0, 0.0)["gru"], gradient(*batch, image, 0.0, 0.0)["gru"]
                shares.append(scale * optax.global_norm(ours) / optax.global_norm(others))
            params = optax.apply_updates(params, changes)
        steps = ", ".join(f"{each:.2f}" for each in np.mean(heads, axis=0))
        console.say(f"| {scale:g} | {steps} | {np.mean(shares):.3f} |")


def mean_steps(changes: Params, rate: float) -> list[float]:
    """The mean size of an optimiser's changes to each kernel of a pytree, in learning rates: [kernels]."""
    return [float(jnp.abs(x).mean()) / rate for x in jax.tree.leaves(changes) if x.ndim > 1]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
