"""Records shards of frames, actions and rewards to train environment models on, played by chance or by a trained run.

    python -m experiments.record --game=MsPacman --policy=runs/pacman --steps=1000000 --folder=data/p

Games are recorded as in Buesing et al. (2018), appendix A.4: 18 actions, one for four frames, 200 x 160 in colour: the
210 x 160 screen without its last 10 rows; --size=80x64 is the screen resized to 84 x 64 and cut to 80. A model for an
agent with fewer actions has its own: --actions=0,2,3,4,5, in the numbers of `wmjax/envs/atari_actions.py`. Other
environments are recorded as they are, made with --option=maze=9x11, say. Every shard plays its own environments from
the beginning of an episode, with seeds drawn from --seed and the shard's number: so the same command resumes, also
after a shard was lost, and ends with the same data. A larger --steps adds shards. --rows is also how far into an
episode the data reach. The data folder, and how to read it: `wmjax.storage.datasets`.
"""

import itertools
import math
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments import players
from experiments.runs import RANDOM, policy_folder
from wmjax import console, envs, memory
from wmjax.agents.random import make_random_actor
from wmjax.envs import atari_actions
from wmjax.run import cli
from wmjax.run.collect import Player, arrivals, make_player
from wmjax.run.members import alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import datasets, manifest
from wmjax.types import Array, Step, UsageError

SCREEN, KEPT = 210, 200  # rows of a game's screen, and those of the paper


class Policy(NamedTuple):
    """Who plays what is recorded."""

    actor: Any
    params: Any  # [1, ...]
    env: dict | None  # options of the environments that it sees; None: it sees what is recorded
    source: dict  # what config.json says of it
    numbers: np.ndarray | None = None  # int32, of its actions among those that are recorded; None: they are the same


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_string(
        "game",
        None,
        "a gym name such as MsPacman, or a full environment name such as ball:drifting",
        flag_values=values,
    )
    flags.DEFINE_string("policy", RANDOM, "who plays: random, or the folder of a run", flag_values=values)
    cli.int_flag(values, "member", 0, "which agent of a population, counted from 0", 0)
    cli.int_flag(values, "steps", None, "decisions in all, rounded up to whole shards", 1, 10**12)
    cli.path_flag(values, "folder", "where the data go")
    cli.int_flag(values, "envs", 8, "environments of a shard, played at once", 1, 1024)
    cli.int_flag(values, "rows", 1000, "decisions of a shard for each environment", 1, 10**6)
    flags.DEFINE_string("size", None, "ROWSxCOLUMNS of a game's stored image; 200x160 unless told", flag_values=values)
    flags.DEFINE_string("actions", None, "NUMBER,NUMBER,... a game's actions; all unless told", flag_values=values)
    text = "NAME=VALUE of an environment that is no game, as its module tells; once or more"
    flags.DEFINE_multi_string("option", [], text, flag_values=values)
    cli.int_flag(values, "seed", 0, "of the environments and the actions", 0, 10**9)


def main(argv: list[str]) -> None:
    """Records what is missing. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    if options.game is None or options.steps is None or options.folder is None:
        raise UsageError("give --game=GAME, --steps=N and --folder=DIR")
    cli.use_jax()
    name = options.game if ":" in options.game else f"atari:{options.game}"
    env_options = recorded_options(name, options.size, options.actions, options.option)
    trained, policy = policy_folder(options.policy), None
    if trained:
        policy = restore_policy(options, trained, options.member, name)
    elif options.member:
        raise UsageError(f"--member={options.member}: is for a run's agents; give --policy=FOLDER too")
    if policy and policy.env:
        numbers = numbers_among(options, name, policy.env, env_options)
        others = ("stack", "actions", "full_action_set", "observe")
        kept = {key: value for key, value in policy.env.items() if key not in others}  # its time limit, say
        policy, env_options = policy._replace(numbers=numbers), kept | env_options
    # Whatever is refused is refused before the folder is touched.
    probe = envs.make(name, options.envs, 0, **env_options)
    probe.close()
    policy = policy or Policy(make_random_actor(probe.spec.action), np.zeros(1), None, dict(name=RANDOM))
    player = make_player(policy.actor, options.envs, explore=False)

    folder, count = pathlib.Path(options.folder), datasets.count_for(options.steps, options.envs * options.rows)
    if count > datasets.MOST:
        raise UsageError(f"--steps={options.steps}: {count} shards, at most {datasets.MOST}; raise --rows or --envs")
    image_bytes = math.prod(probe.spec.obs_shape) * np.dtype(probe.spec.obs_dtype).itemsize
    shard_bytes = image_bytes * options.envs * (options.rows + 1)
    memory.check_fits(shard_bytes, f"a shard of --rows={options.rows} and --envs={options.envs}", memory.host_memory())
    asked = dict(
        game=name, policy=policy.source, env=env_options, envs=options.envs, rows=options.rows, seed=options.seed
    )
    index = datasets.open_folder(folder, asked, probe.spec)
    for number, fault in datasets.missing(folder, index, count):
        if fault:
            console.warn(f"{fault}: recorded again")
        index = datasets.add(folder, index, number, play_shard(options, name, env_options, policy, player, number))
        done, file, steps = len(index["shards"]), datasets.name_of(number), datasets.total(index)["decisions"]
        console.say(f"{done} of {count} shards: {file}, {steps} steps")
    total = datasets.total(index)
    mean = "no episode ended" if total["return_mean"] is None else f"mean return {total['return_mean']:.2f}"
    step_bytes = total["bytes"] / total["decisions"]
    counts = f"{total['decisions']} steps, {total['episodes']} episodes"
    console.say(f"{folder}: {counts}, {mean}, {step_bytes:.0f} bytes a step")


def recorded_options(name: str, size: str | None, actions: str | None, others: Sequence[str]) -> dict[str, Any]:
    """Options of `envs.make` for what is stored.

    Args: size: "ROWSxCOLUMNS" or None; actions: "NUMBER,NUMBER" or None; others: "NAME=VALUE" each.
    """
    if not name.startswith("atari:"):
        for flag, value in (("size", size), ("actions", actions)):
            if value is not None:
                raise UsageError(f"--{flag}={value}: is for Atari games; {name} is recorded as it is")
        return dict(map(option, others))
    if others:
        raise UsageError(f"--option={others[0]}: is for other environments than Atari games")
    if actions is not None and not re.fullmatch(r"\d{1,2}(,\d{1,2})*", actions):
        raise UsageError(f"--actions={actions}: must be numbers with commas between them, such as 0,2,3,4,5")
    played = dict(actions=[int(x) for x in actions.split(",")]) if actions else dict(full_action_set=True)
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", size or f"{KEPT}x160")
    if not found:
        raise UsageError(f"--size={size}: must be ROWSxCOLUMNS, such as 200x160 or 80x64")
    rows, columns = map(int, found.groups())
    if rows * SCREEN % KEPT:
        raise UsageError(f"--size={size}: rows must be a multiple of 20, so that {SCREEN}/{KEPT} of them is whole")
    height = rows * SCREEN // KEPT
    return dict(size=[height, columns], crop=height - rows, colour=True) | played


def option(text: str) -> tuple[str, Any]:
    """("name", value) of "NAME=VALUE", a whole number where it is written as one."""
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise UsageError(f"--option={text}: must be NAME=VALUE, such as maze=9x11")
    return name, int(value) if value.isdecimal() else value


def numbers_among(options: Any, name: str, seen: dict[str, Any], recorded: dict[str, Any]) -> np.ndarray | None:
    """The number that each action of a policy has in what is recorded, int32 [actions]; None: they are the same.

    Args: seen, recorded: options of the two pools.
    Raises: UsageError where it plays an action that is not recorded.
    """
    if not name.startswith("atari:"):
        return None
    game = name.removeprefix("atari:")
    played_numbers, recorded_numbers = (
        atari_actions.played_set(game, env.get("actions"), bool(env.get("full_action_set"))) for env in (seen, recorded)
    )
    if missing := sorted(set(played_numbers) - set(recorded_numbers)):
        raise UsageError(f"--actions={options.actions}: --policy={options.policy} plays {missing} too")
    return atari_actions.places(played_numbers, recorded_numbers)


def restore_policy(options: Any, folder: str, member: int, name: str) -> Policy:
    """The Policy of a run's newest checkpoint.

    Raises: UsageError if there is none, or it plays another game than `name`.
    """
    restored = players.restore(pathlib.Path(folder), member)
    if restored.source["name"] == "planet":
        raise UsageError(f"--policy={folder}: a run of another experiment than smaller_world_models or i2a")
    if restored.task != name:
        raise UsageError(f"--policy={folder}: plays {restored.task}, --game={options.game} is {name}")
    source = restored.source | dict(parameters=manifest.digest(restored.params)[:16])
    return Policy(restored.actor, alone(restored.params), restored.env, source)


def play_shard(
    options: Any, name: str, env_options: dict[str, Any], policy: Policy, player: Player, number: int
) -> Step:
    """Plays one shard: Step [rows + 1, E, ...] of numpy arrays as they are stored."""
    # Any number below 2^31 - E is a seed for envs.make.
    seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0]) % (2**31 - options.envs)
    keys = jax.random.fold_in(jax.random.key(options.seed), number)[None]
    shown = envs.make(name, options.envs, seed, **env_options)
    if policy.env is None:
        steps = gather(played(shown, player, policy.params, keys), options.rows + 1)
    else:
        seen = envs.make(name, options.envs, seed, **policy.env)
        steps = gather(played_twice(options, seen, shown, player, policy, keys), options.rows + 1)
        seen.close()
    shown.close()
    return steps


def played(env: envs.VecEnv, player: Player, params: Any, keys: Array) -> Iterator[Step]:
    """Plays one pool; yields every Step from the first, for ever. player, params, keys: as in `collect.arrivals`."""
    first = env.reset()
    yield first
    yield from arrivals(env, player, params, keys, Stopwatch(), first)


def played_twice(
    options: Any, seen: envs.VecEnv, shown: envs.VecEnv, player: Player, policy: Policy, keys: Array
) -> Iterator[Step]:
    """Plays two pools of the same game and seeds with the same actions; yields every Step of the second, for ever.

    Args: seen: VecEnv whose images the policy sees; shown: VecEnv whose steps are wanted; player, keys: as in
      `collect.arrivals`.
    Raises: UsageError if the two games part: an option that changes the game differs.
    """
    for t, step in enumerate(played(seen, player, policy.params, keys)):
        # Of a row that begins an episode the action is 0, and is not played.
        action = step.prev_action if policy.numbers is None else policy.numbers[step.prev_action]
        recorded = shown.step(action) if t else shown.reset()
        for field in ("reward", "discount", "is_first", "is_last"):
            differs = np.flatnonzero(getattr(step, field) != getattr(recorded, field))
            if len(differs):
                raise UsageError(
                    f"the game that is recorded parts from the one that --policy={options.policy} sees: {field} "
                    f"differs at decision {t} of environment {differs[0]}"
                )
        yield recorded


def gather(steps: Iterator[Step], count: int) -> Step:
    """The first `count` of an iterator of Steps [E], as one Step [count, E, ...]; images are not held twice."""
    first = next(steps)
    whole = jax.tree.map(lambda x: np.empty((count, *x.shape), x.dtype), first)
    for t, step in enumerate(itertools.chain([first], itertools.islice(steps, count - 1))):
        for field, values in vars(whole).items():
            values[t] = getattr(step, field)
    return whole


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
