"""Fits a model to the episodes of finished runs and asks it for the rewards of others: which settings generalise?

    python -m experiments.planet.fit --config=experiments/planet/config.py:cheetah_run,cpu \\
        --train=runs/a,runs/b --test=runs/c --config.model.kl_scale=0.1

No environment is played, so settings compare in minutes. All runs must have the images of the config. Prints one JSON
line a measurement: R2 of the rewards of the states where the test episodes are (`posterior`), and of the sum of the
planner's horizon of rewards, predicted from those states and the actions taken (`horizon`), for both sets.
"""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.planet import config as configs
from experiments.planet import phases
from experiments.planet.agent import check_chunk, make_agent, settings, spec_of
from experiments.presets import config_flag
from wmjax import console, imagine
from wmjax.ops.actions import model_action
from wmjax.ops.axes import time_first
from wmjax.run import cli, devices, replays
from wmjax.run.members import member
from wmjax.storage import checkpoint
from wmjax.train import acting_params, check_finite, make_phase
from wmjax.types import UsageError, image_of

PAST = 4  # rewards that --above looks at


def define_flags(values, argv):
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    config_flag(values, argv, configs.USAGE)
    cli.paths_flag(values, "train", "folders of runs whose episodes are learned")
    cli.paths_flag(values, "test", "folders of runs whose rewards are asked for")
    cli.int_flag(values, "updates", 2000, "updates in all, rounded up to a multiple of --every", 1, 10**9)
    cli.int_flag(values, "every", 500, "updates between measurements", 1, 10**6)
    flags.DEFINE_float(
        "above", -np.inf, "count only states whose last four rewards average above this", flag_values=values
    )


def main(argv):
    """Fits once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__, configs)
    if options.config is None or not options.train or not options.test:
        raise UsageError(f"give --config={configs.USAGE}, --train=DIR,... and --test=DIR,...")
    cli.use_jax()
    chosen = settings(options.config)
    train = chosen.train
    spec = spec_of(chosen)
    agent = make_agent(chosen, spec)
    sets = dict(train=read_episodes(options.train, spec), test=read_episodes(options.test, spec))

    mesh = devices.make_mesh(chosen.devices)
    rows, example = sum(len(x.reward) for x in sets["train"]), member(sets["train"][0], 0)
    memory = replays.make_memory(rows, 1, example, 1, mesh)  # of a population of one
    extend = replays.make_extend(memory)
    for steps in sets["train"]:
        memory = extend(memory, steps)
    check_chunk(train, memory)
    sets = {name: longer(episodes, chosen.planner.horizon, name) for name, episodes in sets.items()}
    phase = make_phase(phases.make_update(agent.learner, train, mesh), sharding=devices.replicated(mesh))
    measure = jax.jit(functools.partial(predict_rewards, agent.model, spec.action, horizon=chosen.planner.horizon))
    init_key, train_key, measure_key = jax.random.split(jax.random.key(chosen.members[0].seed), 3)
    learner = jax.jit(jax.vmap(agent.learner.init), out_shardings=devices.replicated(mesh))(init_key[None])
    done = 0
    while done < options.updates:
        keys = jax.random.split(jax.random.fold_in(train_key, done), options.every)[:, None]  # [C, 1]
        learner, losses = phase(learner, memory, keys)
        check_finite(member(losses, (slice(None), 0)), done + 1)
        done += options.every
        row = dict(updates=done)
        for name, episodes in sets.items():
            row |= {
                f"{name}/{key}": x
                for key, x in explained(
                    measure, member(acting_params(learner), 0), measure_key, episodes, options.above
                ).items()
            }
        console.say(json.dumps({name: round(x, 3) for name, x in row.items()}))


def read_episodes(folders, spec):
    """Every episode of the runs in `folders`, a list of Step [T, 1]; raises UsageError for none or for other images."""
    episodes = []
    for folder in folders:
        count = len(list((pathlib.Path(folder) / checkpoint.ROWS).glob("*.npz")))
        if not count:
            raise UsageError(f"{folder} has no episodes")
        for steps in checkpoint.load_rows(folder, count):
            images = image_of(steps.obs).shape[2:]
            if images != spec.obs_shape:
                raise UsageError(f"{folder} has images {images}, the config {spec.obs_shape}")
            episodes += [jax.tree.map(lambda x, e=e: x[:, e : e + 1], steps) for e in range(steps.reward.shape[1])]
    return episodes


def longer(episodes, horizon, name):
    """The episodes of a set in which `horizon` rewards can be asked for; raises UsageError if there is none."""
    found = [steps for steps in episodes if len(steps.reward) > horizon]
    if not found:
        raise UsageError(f"config.planner.horizon={horizon}: no episode of --{name} has so many decisions")
    return found


def predict_rewards(model, action_spec, params, key, steps, horizon):
    """Rewards of one episode as the model sees them, and as it predicts them.

    Args: steps: Step [T, 1].
    Returns: (posterior float32 [T], the rewards of the states; sums float32 [T - horizon], row t the sum of the rewards
      of t + 1 ... t + horizon, predicted from the state at t and the actions taken).
    """
    filter_key, open_key = jax.random.split(key)
    actions = model_action(jnp.asarray(steps.prev_action), action_spec)  # [T, 1, A]
    _, states, _ = imagine.filter_steps(model, params, filter_key, jax.tree.map(time_first, steps), action_spec)
    posterior = imagine.rewards(model, params, states)[0]
    starts = len(actions) - horizon
    ahead = jnp.stack([actions[1 + h : 1 + h + starts, 0] for h in range(horizon)])  # [H, starts, A]
    begun = jax.tree.map(lambda x: x[0, :starts], states)
    return posterior, imagine.predict_rewards(model, params, open_key, begun, ahead)[0].sum(axis=0)


def explained(measure, params, key, episodes, above=-np.inf):
    """R2 over all episodes, dict(posterior, horizon, states).

    measure: `predict_rewards` of (params, key, steps); above: bound on the mean of a counted state's last PAST rewards.
    """
    pairs = []
    for steps in episodes:
        posterior, sums = (np.asarray(x) for x in measure(params, key, steps))
        reward = steps.reward[:, 0]
        starts, horizon = len(sums), len(reward) - len(sums)
        cumulative = np.concatenate([[0.0], np.cumsum(reward)])
        after = cumulative[1 + horizon :] - cumulative[1 : 1 + starts]  # sum of reward[t + 1 : t + 1 + horizon]
        t = np.arange(PAST - 1, starts)
        t = t[(cumulative[t + 1] - cumulative[t + 1 - PAST]) / PAST > above]
        pairs.append(np.stack([posterior[t], reward[t], sums[t], after[t]]))
    posterior, reward, sums, after = np.concatenate(pairs, axis=1)
    return dict(posterior=r2(posterior, reward), horizon=r2(sums, after), states=len(reward))


def r2(predicted, true):
    """Share of the variance of arrays [N] that is explained: 1 when equal, 0 for the mean; nan when they are empty."""
    return float(1 - np.mean((predicted - true) ** 2) / np.var(true)) if len(true) else float("nan")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
