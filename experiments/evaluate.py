"""Plays episodes with the newest agent of a run, or with random actions: returns, their standard error and a video.

    python -m experiments.evaluate --workdir=runs/a --episodes=10

For runs of planet, smaller_world_models and i2a. Nobody explores; agents that draw their actions from a policy draw
them here too. Episodes are those of --seed for the purpose "test", which no training and no evaluation within a run
plays, and the same for every run. --policy=random plays the run's environment by chance under the same protocol.
Writes evaluate.json and videos/evaluate.mp4 into the run's folder, evaluate_random.* for random actions.
"""

import json
import sys
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import players
from experiments.smaller_world_models import scores
from wmjax import console, envs
from wmjax.agents.random import make_random_actor
from wmjax.report.metrics import evaluated
from wmjax.report.video import write_video
from wmjax.run import cli
from wmjax.run.collect import make_player, play_returns
from wmjax.run.members import alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import workdir
from wmjax.storage.files import write_whole
from wmjax.types import Step, image_of

FRAMES_A_SECOND = 15


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.int_flag(values, "episodes", 10, "episodes, played at once", 1, 1024)
    cli.int_flag(values, "member", 0, "which agent of a population, counted from 0", 0)
    text = "which of the tasks of one PlaNet agent; the first unless told"
    flags.DEFINE_string("task", None, text, flag_values=values)
    cli.int_flag(values, "seed", 0, "seed of the episodes and of the actions", 0, 10**9)
    text = "who plays: the newest checkpoint, or chance"
    flags.DEFINE_enum("policy", "newest", ["newest", "random"], text, flag_values=values)
    cli.int_flag(values, "film", 500, "frames of the video, of the first episode; 0: no video", 0, 10_000)


def main(argv: list[str]) -> None:
    """Evaluates once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    workdir.check_writable_run(folder)
    cli.use_jax()
    restored = players.restore(folder, options.member, options.task)
    env = envs.make(restored.task, options.episodes, options.seed, purpose="test", **restored.env)
    env = envs.pad(env, restored.actions or env.spec.action.size)
    actor, params, source, name = restored.actor, alone(restored.params), restored.source, f"evaluate{restored.label}"
    if options.policy == "random":
        actor, params, source = make_random_actor(env.spec.action), np.zeros(1), dict(name="random")
        name += "_random"

    player = make_player(actor, options.episodes, explore=False)
    keys = jax.random.key(options.seed)[None]
    returns, film = play_returns(env, player, params, keys, Stopwatch(), max(1, options.film), rows=slice(1))
    video = folder / "videos" / f"{name}.mp4" if options.film else None
    if video:
        shown = first_episode(film, restored.env.get("stack", 1))
        video = console.try_drawing(write_video, video, shown, FRAMES_A_SECOND)

    row = return_metrics(returns, restored.task)
    for line in lines(returns, row, source):
        console.say(line)
    if options.film:
        console.say(f"video: {video or 'could not be written'}")
    result = dict(policy=source, task=restored.task, member=options.member, seed=options.seed) | row
    write_whole(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")


def first_episode(film: Step, stack: int) -> np.ndarray:
    """Images of the first episode of numpy Step [T, 1], uint8 [T', X, Y, C]. stack: frames in one, the newest last."""
    images, ends = image_of(film.obs)[:, 0], np.flatnonzero(film.is_last[:, 0])
    return images[: ends[0] + 1 if len(ends) else None, ..., -(images.shape[-1] // stack) :]


def return_metrics(returns: np.ndarray, task: str) -> dict[str, Any]:
    """Metrics of returns [episodes]: mean, standard deviation and error (None of one episode), of games also scores."""
    error = returns.std(ddof=1) / len(returns) ** 0.5 if len(returns) > 1 else None
    row = evaluated(returns) | {"eval/return_stderr": error}
    normalised = scores.normalised(returns.mean(), scores.game_of(task))
    return row | {f"normalised/{table}": value for table, value in normalised.items()}


def lines(returns: np.ndarray, row: dict[str, Any], source: dict[str, Any]) -> list[str]:
    """What is printed of returns [episodes]. row: of `return_metrics`; source: as of `players.Restored`."""
    printed = [f"episode {i}: return {value:.1f}" for i, value in enumerate(returns)]
    error = row["eval/return_stderr"]
    printed += [f"mean {row['eval/return_mean']:.1f}" + ("" if error is None else f", standard error {error:.1f}")]
    for name, value in row.items():
        if name.startswith("normalised/"):
            printed.append(f"human-normalised, {name.removeprefix('normalised/')}: {value:.1%}")
    reached = ", ".join(f"{count} {unit}" for unit, count in source.items() if unit != "name")
    return [*printed, f"checkpoint of {source['name']} after {reached}" if reached else "random actions"]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
