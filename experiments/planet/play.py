"""Plays the agent of a finished PlaNet run beside its own imagination, or lets you play in the imagination.

    python -m experiments.planet.play --workdir=runs/a --every=25
    python -m experiments.planet.play --workdir=runs/a --interactive

The first plays an episode without exploration noise and writes a video into the run's folder: what happened, what the
model imagined of the same actions, and the absolute difference. The imagination restarts from the agent's belief every
--every decisions; the bar below it grows until then. The second opens a page for this machine alone, on which keys
drive the model: no environment, your actions in and its images out. Ctrl-C ends it.
"""

import sys

import jax
import numpy as np
from absl import flags

from experiments.planet import interactive
from experiments.planet.agent import Loaded, load, test_env
from experiments.planet.predictions import FRAMES_A_SECOND
from wmjax import console
from wmjax.agents.open_loop import restarted_images
from wmjax.ops import image_bits
from wmjax.report import video
from wmjax.run import cli
from wmjax.run.collect import make_player, padded, play_episodes
from wmjax.run.members import alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Array, Params, Step, UsageError, image_of

BAR = 1  # rows of pixels


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.int_flag(values, "member", 0, "which agent of a population, counted from 0", 0)
    flags.DEFINE_string("task", None, "which of the tasks of one agent; the first unless told", flag_values=values)
    cli.int_flag(values, "seed", 0, "seed of the episode, the planner and the model", 0, 10**9)
    cli.int_flag(values, "every", 25, "decisions from one restart of the imagination to the next", 2, 10**6)
    flags.DEFINE_boolean("interactive", False, "whether keys drive the imagination, on a page", flag_values=values)
    cli.int_flag(values, "port", 8000, "of the page; 0: any that is free", 0, 65535)


def main(argv: list[str]) -> None:
    """Writes the video, or serves the page until Ctrl-C. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    cli.use_jax()
    loaded = load(folder, options.member, options.task)
    if loaded.agent.model.decode is None:
        raise UsageError(f"{folder}: the model of this run predicts no images, so there is nothing to be seen")
    console.say(f"checkpoint after episode {loaded.episodes}, {loaded.updates} updates")
    if options.interactive:
        interactive.serve(interactive.make_server(make_imagination(loaded, options.seed), options.port))
        return
    steps, total = play(loaded, options.seed)
    imagined = imagine_episode(loaded, options.seed, steps, options.every)
    truth = image_of(steps.obs)[:, 0]
    for decisions, error in errors(truth, imagined, options.every).items():
        console.say(f"{decisions} decisions after a restart: a pixel is off by {error:.1f} of 255")
    name = folder / "videos" / f"play_{loaded.episodes:06d}{loaded.label}.mp4"
    made = console.try_drawing(video.write_video, name, frames(truth, imagined, options.every), FRAMES_A_SECOND)
    console.say(f"return {total:.1f} in {len(steps.reward) - 1} decisions; video: {made or 'could not be written'}")


def play(loaded: Loaded, seed: int) -> tuple[Step, float]:
    """(Step [T, 1] of one test episode without exploration noise, its return). loaded: Loaded."""
    env = test_env(loaded, 1, seed)
    player = make_player(loaded.agent.actor, 1, explore=False)
    steps, returns = play_episodes(env, player, alone(loaded.params), jax.random.key(seed)[None], Stopwatch())
    env.close()
    return steps, returns[0]


def imagine_episode(loaded: Loaded, seed: int, steps: Step, every: int) -> np.ndarray:
    """Images of `restarted_images`, uint8 [T, X, Y, C]. steps: Step [T, 1]."""

    @jax.jit
    def images_of(params: Params, key: Array, steps: Step) -> Array:
        settings = dict(action_spec=loaded.spec.action, every=every)
        return image_bits.to_uint8(restarted_images(loaded.agent.model, params, key, steps, **settings)[:, 0])

    time = len(steps.reward)
    whole = padded(steps, -(-time // every) * every)
    return np.asarray(images_of(loaded.params, jax.random.key(seed), whole))[:time]


def errors(truth: np.ndarray, imagined: np.ndarray, every: int) -> dict[int, float]:
    """{decisions since the restart: mean absolute difference of a pixel}, of none, half of them and the last.

    Args: truth, imagined: uint8 [T, X, Y, C].
    """
    error = video.difference(truth, imagined).mean(axis=(1, 2, 3))
    last = min(every, len(error)) - 1
    return {since: float(error[since::every].mean()) for since in sorted({0, last // 2, last})}


def frames(truth: np.ndarray, imagined: np.ndarray, every: int) -> np.ndarray:
    """The video's frames [T, X + bar, ...]: truth, imagination, difference side by side. Args: as of `errors`."""
    shown = video.tile(np.stack([truth, imagined, video.difference(truth, imagined)]))
    bar = np.zeros((len(shown), BAR, *shown.shape[2:]), np.uint8)
    width = truth.shape[2]
    for t in range(len(shown)):
        bar[t, :, width + video.GAP :][:, : width * (t % every + 1) // every] = video.ORANGE
    return np.concatenate([shown, np.zeros_like(bar), bar], axis=1)


def make_imagination(loaded: Loaded, seed: int) -> interactive.Imagination:
    """The Imagination of a Loaded agent, which begins where test episodes do."""
    env = test_env(loaded, interactive.STARTS, seed)
    firsts = env.reset().obs
    env.close()
    return interactive.Imagination(loaded.agent.model, loaded.params, loaded.spec.action, firsts, seed)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
