"""How far an agent of MiniPacman looks: what it does, by the distance to the nearest food.

    python -m experiments.i2a.food --workdir=runs/f

Plays first episodes with the newest agent, whose actions are drawn from its policy, and counts decisions by the number
of steps to the nearest cell with food: how uncertain the policy is there, how often a step leads closer to food, how
often away from it, how often to death. An agent that knows what one step does, and no more, finds food beside itself
and walks by chance elsewhere. Prints a table and writes FOLDER/food.json.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.i2a import agent as agents
from wmjax import console, envs
from wmjax.envs import minipacman
from wmjax.ops import distributions
from wmjax.report.markup import markdown
from wmjax.run import cli
from wmjax.storage import workdir
from wmjax.storage.files import write_whole
from wmjax.types import Array, UsageError

GROUPS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, None))  # steps to the nearest food, first and last
UNREACHED = 1000  # steps to where nothing leads
HEADER = ("steps to food", "decisions", "share", "entropy", "closer", "away", "deaths")


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.int_flag(values, "episodes", 128, "episodes, played at once", 1, 1024)
    cli.int_flag(values, "decisions", 400, "of an episode, at most", 1, 1_000_000)
    cli.int_flag(values, "seed", 0, "seed of the episodes and of the actions", 0, 10**9)


def main(argv: list[str]) -> None:
    """Plays and counts. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    workdir.check_writable_run(folder)
    cli.use_jax()
    loaded = agents.load(folder)
    if not loaded.task.startswith("minipacman:"):
        raise UsageError(f"--workdir={folder}: plays {loaded.task}, and food is MiniPacman's")
    steps = steps_between(minipacman.read_maze(minipacman.MAZES[loaded.env["maze"]]))
    play = jax.jit(make_play(loaded, options.episodes, options.decisions, steps))
    played = jax.tree.map(np.asarray, play(loaded.params, jax.random.key(options.seed)))
    rows = list(groups(played))
    console.say("\n".join(markdown(HEADER, [words(row) for row in rows])))
    returned = float((played["reward"] * played["counts"]).sum(axis=0).mean())
    console.say(f"mean return {returned:.1f} of {options.episodes} episodes, {options.decisions} decisions at most")
    result = dict(updates=loaded.updates, episodes=options.episodes, decisions=options.decisions, seed=options.seed)
    write_whole(folder / "food.json", json.dumps(result | {"return": returned, "groups": rows}, indent=1) + "\n")


def steps_between(maze: minipacman.Maze) -> np.ndarray:
    """Number of steps from each cell of a maze to each other, int32 [cells, cells]; UNREACHED from and to walls."""
    steps = np.full((maze.walls.size, maze.walls.size), UNREACHED, np.int32)
    offsets = minipacman.MOVES @ [maze.columns, 1]
    for start in maze.free:
        newest, distance = [start], 0
        while newest:
            steps[start, newest] = distance
            reached = {cell + move for cell in newest for bit, move in enumerate(offsets) if maze.ways[cell] >> bit & 1}
            newest, distance = [cell for cell in reached if steps[start, cell] == UNREACHED], distance + 1
    return steps


def make_play(
    loaded: agents.Loaded, episodes: int, decisions: int, steps: np.ndarray
) -> Callable[[Any, Array], dict[str, Array]]:
    """(params, key) -> what happened, a dict of arrays [decisions, episodes].

    counts: bool, whether the decision is one of the row's first episode; before, after: int32, steps to the nearest
    food at the decision, and from the next cell to what was food then; entropy: of the policy; reward; died: bool.

    Args: steps: of `steps_between`.
    """
    env = envs.make_jax(loaded.task, **loaded.env)
    assert env is not None

    def nearest(food: Array, pacman: Array) -> Array:
        return jnp.where(food, jnp.asarray(steps)[pacman], UNREACHED).min(axis=-1)

    def decide(params: Any, carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        (game, step, memory, counts), (act_key, step_key) = carry, jax.random.split(key)
        memory, action, logits = loaded.actor.act(params, act_key, memory, step, False)
        after, arrived = env.step(step_key, game, action)
        left = dict(before=nearest(game.food, game.pacman), after=nearest(game.food, after.pacman))
        happened = left | dict(counts=counts, reward=arrived.reward)
        happened |= dict(entropy=distributions.one_hot(logits).entropy(), died=arrived.discount == 0)
        return (after, arrived, memory, counts & ~arrived.is_last), happened

    def play(params: Any, key: Array) -> dict[str, Array]:
        reset_key, key = jax.random.split(key)
        game, step = env.reset(reset_key, episodes)
        carry = (game, step, loaded.actor.initial(params, episodes), jnp.ones(episodes, bool))
        return jax.lax.scan(lambda *args: decide(params, *args), carry, jax.random.split(key, decisions))[1]

    return play


def groups(played: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yields what happened at each distance of GROUPS at which decisions were made. played: of `make_play`."""
    before, after = played["before"], played["after"]
    for first, last in GROUPS:
        own = played["counts"] & (before >= first) & (before <= (last or UNREACHED))
        if count := int(own.sum()):
            told = dict(closer=after < before, away=after > before, deaths=played["died"], entropy=played["entropy"])
            means = {name: float(value[own].mean()) for name, value in told.items()}
            yield dict(first=first, last=last, decisions=count, share=count / int(played["counts"].sum()), **means)


def words(row: Mapping[str, Any]) -> list[str]:
    """A row of the table, of one of `groups`."""
    first, last = row["first"], row["last"]
    where = f"{first} or more" if last is None else str(first) if first == last else f"{first} to {last}"
    shares = [f"{row[name]:.0%}" for name in ("closer", "away")]
    numbers = [f"{row['decisions']:,}", f"{row['share']:.0%}", f"{row['entropy']:.2f}"]
    return [where, *numbers, *shares, f"{row['deaths']:.1%}"]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
