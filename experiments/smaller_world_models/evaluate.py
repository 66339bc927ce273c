"""Plays episodes with the newest policy of a run, or with random actions, and reports returns, scores and a video.

python -m experiments.smaller_world_models.evaluate --workdir=runs/a --episodes=32

Actions are drawn at temperature 1, as the paper evaluates. --policy=random plays the game of that run under the same
protocol with uniform actions, and needs no checkpoint.
"""

import json
import sys

import jax
import numpy as np
from absl import flags

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import phases, predictions, scores
from wmjax import console, envs
from wmjax.agents.random import make_random_actor
from wmjax.report import metrics
from wmjax.report.page import write_whole
from wmjax.report.video import write_video
from wmjax.run import cli
from wmjax.run.collect import make_player, play_returns
from wmjax.run.members import pick
from wmjax.run.stopwatch import Stopwatch


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.int_flag(values, "episodes", 32, "episodes, played at once", 1, 1024)
    cli.int_flag(values, "member", 0, "which agent of a population, counted from 0", 0)
    cli.int_flag(values, "seed", 0, "seed of the episodes and of the actions", 0, 10**9)
    flags.DEFINE_enum(
        "policy", "newest", ["newest", "random"], "who plays: the newest checkpoint, or chance", flag_values=values
    )


def main(argv: list[str]) -> None:
    """Evaluates once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    cli.use_jax()
    chosen = agents.read_settings(folder)
    task = pick(chosen.members, options.member).task
    env = envs.make(task, options.episodes, options.seed, purpose="test", **chosen.env)
    if options.policy == "random":
        actor, params, name = make_random_actor(env.spec.action), np.zeros(1), "evaluate_random"  # no parameters
        played, who = dict(policy="random"), "random actions"
    else:
        restored = agents.load(folder, options.member)
        actor, params, name = restored.actor, restored.params, "evaluate"
        who = f"checkpoint after iteration {restored.iterations}, {restored.updates} updates of the dynamics"
        played = dict(checkpoint_iterations=restored.iterations, updates=restored.updates, member=options.member)

    player = make_player(actor, options.episodes, explore=False)
    keys = jax.random.key(options.seed)[None]
    returns, film = play_returns(env, player, params, keys, Stopwatch(), predictions.FILM)
    shown = phases.newest(film, chosen.train.frames).obs[:, 0]
    video = console.try_drawing(write_video, folder / "videos" / f"{name}.mp4", shown, predictions.FRAMES_A_SECOND)

    row = metrics.evaluated(returns)
    found = scores.normalised(row["eval/return_mean"], scores.game_of(task))
    for i, value in enumerate(returns):
        console.say(f"episode {i}: return {value:.1f}")
    console.say(f"mean {row['eval/return_mean']:.1f}, standard deviation {row['eval/return_std']:.1f}")
    for table, value in found.items():
        console.say(f"human-normalised, {table}: {value:.1%}")
    console.say(f"{who}; video: {video or 'could not be written'}")
    result = played | dict(seed=options.seed, task=task) | row
    result |= {f"normalised/{table}": value for table, value in found.items()}
    write_whole(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
