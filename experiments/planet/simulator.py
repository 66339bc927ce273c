"""Plays tasks with the true simulator as the model: what a planner earns when nothing has to be learned.

    python -m experiments.planet.simulator --tasks=cheetah_run,reacher_easy --seeds=3 --folder=runs/simulator

Settings: `planet` is Table 1's (horizon 12, 10 iterations, 1000 candidates, 100 elites, PlaNet's action repeats);
`trade_offs` that of the trade-offs study's Oracle (128 candidates, 12 elites, action repeat 4). Episodes are kept as
lines of FOLDER/episodes.jsonl: the same command goes on with what is missing. Writes FOLDER/table.md: returns beside
the published ones.
"""

import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.planet import scores
from experiments.runs import check_folder, publish
from wmjax import console, envs
from wmjax.agents.mpc import MPCConfig, make_actor
from wmjax.envs.check import check_name
from wmjax.envs.dmc import ACTION_REPEAT
from wmjax.models import simulator
from wmjax.planners import CEMConfig, make_cem
from wmjax.planners.cem import ACTIONS
from wmjax.report.markup import markdown
from wmjax.report.metrics import rows_of
from wmjax.report.statistics import with_interval
from wmjax.run import cli, stop
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import files
from wmjax.types import UsageError

EPISODES = "episodes.jsonl"


class Setting(NamedTuple):
    """One episode: everything that decides its return."""

    task: str
    seed: int
    action_repeat: int
    planner: CEMConfig

    def line(self) -> dict[str, Any]:
        """What of it stands in a line of episodes.jsonl."""
        return dict(task=self.task, seed=self.seed, action_repeat=self.action_repeat) | vars(self.planner)


PLANNERS = dict(planet=CEMConfig(), trade_offs=CEMConfig(candidates=128, elites=12))
REPEATS = dict(planet=ACTION_REPEAT, trade_offs=dict.fromkeys(ACTION_REPEAT, 4))


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    flags.DEFINE_list("tasks", ["cheetah_run"], "tasks of the control suite, or all", flag_values=values)
    flags.DEFINE_string(
        "setting", "trade_offs", "of planner and action repeat: planet or trade_offs", flag_values=values
    )
    flags.DEFINE_string("action", "mean", "what is done: the belief's mean, or the best sample", flag_values=values)
    cli.int_flag(values, "seeds", 3, "episodes of each task, from seed 0", 1, 1000)
    cli.path_flag(values, "folder", "where the episodes are, or will be")


def main(argv: list[str]) -> None:
    """Plays what is missing and writes the table. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = check_folder(options, [EPISODES])
    check_name("--setting", options.setting, PLANNERS)
    check_name("--action", options.action, ACTIONS)
    tasks = list(ACTION_REPEAT) if options.tasks == ["all"] else options.tasks
    if not tasks:
        raise UsageError(f"--tasks=: give all, or at least one of {', '.join(ACTION_REPEAT)}")
    for task in tasks:
        check_name("task", task, ACTION_REPEAT)
    cli.use_jax()
    publish(folder / "table.md", table_of(options.setting, options.action, tasks, options.seeds, folder))


def table_of(setting: str, action: str, tasks: Sequence[str], seeds: int, folder: pathlib.Path) -> list[str]:
    """The lines of `table`, after what is missing in the folder has been played. Raises: as `play_missing`."""
    planner = CEMConfig(**vars(PLANNERS[setting]) | dict(action=action))
    repeats = REPEATS[setting]
    settings = [Setting(task, seed, repeats[task], planner) for task in tasks for seed in range(seeds)]
    return table(setting, action, tasks, play_missing(folder, settings))


def play_missing(folder: pathlib.Path, settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """The lines of FOLDER/episodes.jsonl of these Settings, in their order; those that are not there are played.

    Raises: Stopped when a signal asks it to, between two decisions, the episodes so far are kept; UsageError where the
      file is damaged.
    """
    files.make_folder(folder)
    file = folder / EPISODES
    rows = rows_of(file, file.read_bytes()) if file.exists() else []
    found = {json.dumps({name: row.get(name) for name in settings[0].line()}): row for row in rows}
    stop.listen()
    for setting in settings:
        key = json.dumps(setting.line())
        if key in found:
            continue
        found[key] = setting.line() | play(setting)
        rows.append(found[key])
        files.write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
        console.say(f"{' '.join(f'{k}={v}' for k, v in setting.line().items())}: return {found[key]['return']:.1f}")
    return [found[json.dumps(setting.line())] for setting in settings]


def play(setting: Setting) -> dict[str, Any]:
    """One episode under a Setting: dict of its return, decisions, seconds without those of compiling, threads."""
    env: Any = envs.make(
        f"physics:{setting.task}", 1, setting.seed, purpose="test", action_repeat=setting.action_repeat
    )
    model = simulator.make_model(env.spec, env.advance)
    actor = make_actor(model, make_cem(model, env.spec.action, setting.planner), env.spec.action, MPCConfig())
    player = make_player(actor, 1, explore=False)
    params, keys = np.zeros(1), jax.random.key(setting.seed)[None]
    first = alone(env.reset())
    jax.block_until_ready(player.act(params, keys, np.int32(0), player.begin(params), first))  # compiles
    started = time.monotonic()
    steps, returns = play_episodes(env, player, params, keys, Stopwatch())
    seconds = time.monotonic() - started
    env.close()
    decisions = len(steps.reward) - 1
    return {"return": float(returns[0])} | dict(decisions=decisions, seconds=seconds, threads=env.options.threads)


def published(setting: str, task: str) -> float | None:
    """The return that a paper prints for the true simulator; None where none does."""
    name, agent = dict(planet=("hafner_2019", "cem_true_simulator"), trade_offs=("babaeizadeh_2020", "oracle"))[setting]
    return scores.published(name).get(task, {}).get(agent)


def of_episodes(count: int) -> str:
    """What a table's returns are, in words."""
    return "one episode each" if count == 1 else f"means of {count} episodes with 95% intervals (Student's t)"


def table(setting: str, action: str, tasks: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table. rows: of episodes.jsonl, by task and seed."""
    cells = []
    for own, task in zip(np.array_split(np.arange(len(rows)), len(tasks)), tasks, strict=True):
        returns = np.array([rows[i]["return"] for i in own])
        seconds = [rows[i]["seconds"] / rows[i]["decisions"] for i in own]
        each = ", ".join(f"{x:.0f}" for x in returns)
        paper = published(setting, task)
        rate = f"{1 / np.mean(seconds):.2f}"
        cells.append([task, with_interval(returns, 0), each, "-" if paper is None else f"{paper:.0f}", rate])
    threads = rows[0]["threads"]
    return [
        f"The true simulator under CEM, setting {setting}, acting with the {action}. Returns, {of_episodes(len(own))}; "
        f"decisions a second, threads: {threads}.",
        "",
        *markdown(["task", "return", "episodes", "published", "decisions/s"], cells),
    ]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
