"""Plays episodes with the newest policy of a run, or with random actions, and reports returns, scores and a video.

python -m experiments.smaller_world_models.evaluate --workdir=runs/a --episodes=32

Actions are drawn at temperature 1, as the paper evaluates. --policy=random plays the game of that run under the same
protocol with uniform actions, and needs no checkpoint.
"""

import json
import pathlib
import sys

import jax
import numpy as np
from absl import flags

from experiments.smaller_world_models import parts, scores
from wmjax import console, envs
from wmjax.agents.random import make_random_actor
from wmjax.report import metrics
from wmjax.report.page import write_whole
from wmjax.report.video import write_video
from wmjax.run import cli
from wmjax.run.collect import make_player, play_returns
from wmjax.run.members import pick
from wmjax.run.stopwatch import Timers
from wmjax.storage import workdir
from wmjax.types import UsageError

WORKDIR = cli.path_flag("workdir", "folder of the run")
EPISODES = flags.DEFINE_integer("episodes", 32, "episodes, played at once", lower_bound=1, upper_bound=1024)
MEMBER = flags.DEFINE_integer("member", 0, "which agent of a population, counted from 0", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "seed of the episodes and of the actions", lower_bound=0, upper_bound=10**9)
POLICY = flags.DEFINE_enum("policy", "newest", ["newest", "random"], "who plays: the newest checkpoint, or chance")


def main(argv):
    """Evaluates once. argv: the command line."""
    cli.parse_flags(argv, __name__)
    if WORKDIR.value is None:
        raise UsageError("give --workdir=DIR, the folder of a run")
    cli.use_jax()
    folder = pathlib.Path(WORKDIR.value)
    config = workdir.read_config(folder)
    if not parts.is_own(config):
        raise UsageError(f"{folder} holds a run of another experiment")
    chosen = parts.settings(config)
    task = pick(chosen.members, MEMBER.value).task
    env = envs.make(task, EPISODES.value, SEED.value, purpose="test", **chosen.env)
    if POLICY.value == "random":
        actor, params, name = make_random_actor(env.spec.action), np.zeros(1), "evaluate_random"  # no parameters
        played, who = dict(policy="random"), "random actions"
    else:
        restored = parts.restore_player(folder, MEMBER.value)
        actor, params, name = restored.actor, restored.params, "evaluate"
        who = f"checkpoint after iteration {restored.iterations}, {restored.updates} updates of the dynamics"
        played = dict(checkpoint_iterations=restored.iterations, updates=restored.updates, member=MEMBER.value)

    player = make_player(actor, EPISODES.value, explore=False)
    keys = jax.random.key(SEED.value)[None]
    returns, film = play_returns(env, player, params, keys, Timers(), parts.FILM)
    shown = parts.newest(film, chosen.train.frames).obs[:, 0]
    video = console.try_drawing(write_video, folder / "videos" / f"{name}.mp4", shown, parts.FRAMES_A_SECOND)

    row = metrics.evaluated(returns)
    found = scores.normalised(row["eval/return_mean"], scores.game_of(task))
    for i, value in enumerate(returns):
        console.say(f"episode {i}: return {value:.1f}")
    console.say(f"mean {row['eval/return_mean']:.1f}, standard deviation {row['eval/return_std']:.1f}")
    for table, value in found.items():
        console.say(f"human-normalised, {table}: {value:.1%}")
    console.say(f"{who}; video: {video or 'could not be written'}")
    result = played | dict(seed=SEED.value, task=task) | row
    result |= {f"normalised/{table}": value for table, value in found.items()}
    write_whole(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
