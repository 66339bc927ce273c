"""Reloads the newest checkpoint of a PlaNet run, plays episodes without exploration noise, reports returns and a video.

    python -m experiments.planet.evaluate --workdir=runs/a --episodes=10

An agent of several tasks plays the one of --task=reacher_easy, or else its first.
"""

import json
import sys

import jax
from absl import flags

from experiments.planet.agent import load, test_env
from experiments.planet.predictions import evaluate, make_predict
from wmjax import console
from wmjax.report.page import write_whole
from wmjax.run import cli
from wmjax.run.collect import make_player


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.int_flag(values, "episodes", 10, "episodes, played at once", 1, 1024)
    cli.int_flag(values, "member", 0, "which agent of a population, counted from 0", 0)
    flags.DEFINE_string("task", None, "which of the tasks of one agent; the first unless told", flag_values=values)
    cli.int_flag(values, "seed", 0, "seed of the episodes and of the planner", 0, 10**9)


def main(argv: list[str]) -> None:
    """Evaluates once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    cli.use_jax()
    loaded = load(folder, options.member, options.task)
    env = test_env(loaded, options.episodes, options.seed)
    predict = make_predict(loaded.agent, env.spec)
    player = make_player(loaded.agent.actor, options.episodes, explore=False)
    name = f"evaluate_{loaded.episodes:06d}{loaded.label}"
    keys = jax.random.key(options.seed)[None]
    (row,), _ = evaluate([folder], name, env, player, predict, loaded.params, keys)
    for i in range(options.episodes):
        console.say(f"episode {i}: return {row[f'eval/return_{i}']:.1f}")
    console.say(f"mean {row['eval/return_mean']:.1f}, standard deviation {row['eval/return_std']:.1f}")
    video = folder / "videos" / f"{name}.mp4"
    shown = video if video.exists() else "could not be written"
    console.say(f"checkpoint after episode {loaded.episodes}, {loaded.updates} updates; video: {shown}")
    result = (
        dict(checkpoint_episodes=loaded.episodes, updates=loaded.updates, seed=options.seed, task=loaded.task) | row
    )
    write_whole(folder / "evaluate.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
