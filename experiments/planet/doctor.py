"""Looks at this machine and at what a run of PlaNet needs of it: memory, disk and time.

    python -m experiments.planet.doctor --config=experiments/planet/config.py:cheetah_run,cpu

As python -m wmjax.doctor, with its exit codes, and then ten seconds of decisions and updates at the config's own sizes,
from which the minutes to the run's end are estimated.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from experiments.planet import agent as agents
from experiments.planet import config as configs
from experiments.planet import phases
from experiments.training import read_doctor_command
from wmjax import doctor, memory, replay
from wmjax.run import cli, devices, pools, replays
from wmjax.run.collect import arrivals, make_player
from wmjax.run.members import member_keys
from wmjax.run.stopwatch import Stopwatch
from wmjax.train import acting_params, make_phase
from wmjax.types import EnvSpec, LearnerState, Step

SECONDS = 10.0  # of the probe: a third for decisions of an evaluation, the rest for the collection's and updates


class Costs(NamedTuple):
    """Seconds that one of each takes."""

    evaluated: float  # decision of an evaluation
    decision: float  # decision of the collection, beside updates where they overlap
    update: float


def main(argv: list[str]) -> None:
    """Looks at the machine, then at what the config needs. argv: the command line."""
    config, workdir = read_doctor_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    doctor.tell(doctor.with_run(lambda: run_points(settings, workdir), workdir))


def run_points(settings: agents.Settings, workdir: str | None) -> Iterator[doctor.Point]:
    """Yields the Points of memory, disk and time of a run; raises UsageError where its main refuses the config."""
    mesh, specs, spec, example, agent = agents.prepare(settings)
    load = doctor.load()
    costs, state = probe(settings, agent, spec, example, mesh)  # what it holds, a run holds too
    limits: list[Any] = [own.time_limit for own in specs.values()]
    decisions = None if None in limits else sum(limits)
    yield from doctor.room(workdir, needs(settings, example, decisions, state))
    yield doctor.Point("time", f"{time_text(settings, decisions, costs)}; {load}")


def needs(settings: agents.Settings, example: Step, decisions: int | None, state: LearnerState) -> doctor.Needs:
    """The Needs of a run: its replay in memory; checkpoints and, before they are compressed, all episodes on disk.

    Args: example: Step [E]; decisions: of an episode of every task, None where unknown; state: LearnerState [S].
    """
    train, members = settings.train, len(settings.members)
    ring = members * replay.nbytes(train.capacity, example)
    free = memory.free_memory() or ring
    fewer = f"--config.train.replay_rows={int(0.9 * train.replay_rows * free / ring)}"
    row = members * replay.nbytes(1, example) // train.num_envs
    rows = 0 if decisions is None else train.episodes * (decisions // len(settings.tasks) + 1)
    saved = (train.keep_checkpoints + 1) * memory.nbytes(state)
    return doctor.Needs(ring, rows * row + saved, fewer)


def probe(
    settings: agents.Settings, agent: agents.Agent, spec: EnvSpec, example: Step, mesh: Mesh
) -> tuple[Costs, LearnerState]:
    """Costs of a run, in its first task, and the LearnerState [S] that it begins with; takes about ten seconds.

    Args: agent: Agent; spec, example: EnvSpec and Step [E] of its environments.
    """
    train, whole = settings.train, devices.replicated(mesh)
    init_keys, act_keys, train_keys = member_keys(settings.members, 3)
    state = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(init_keys)
    ring = replays.make_constant(train.chunk, train.num_envs, example, len(init_keys), mesh)
    phase = make_phase(phases.make_update(agent.learner, train, mesh), sharding=whole)

    def decisions(count: int, explore: bool) -> Callable[[], Step]:
        task, players = next(iter(settings.tasks.items()))
        env = pools.envs_of({task: players}, count, settings.env, spec.action.size)[task]
        player = make_player(agent.actor, count, explore=explore, sharding=devices.split(mesh, 1))
        return arrivals(env, player, acting_params(state), act_keys, Stopwatch(), env.reset()).__next__

    def update() -> None:
        jax.block_until_ready(phase(state, ring, train_keys[None]))

    evaluate, decide = decisions(settings.evaluation.episodes, False), decisions(train.num_envs, True)
    for compiled in (evaluate, decide, update):
        compiled()
    evaluated, half = doctor.seconds_of(evaluate, SECONDS / 3), SECONDS / 3
    if not train.overlap:
        return Costs(evaluated, doctor.seconds_of(decide, half), doctor.seconds_of(update, half)), state
    with futures.ThreadPoolExecutor(1) as beside:
        updating = beside.submit(doctor.seconds_of, update, 2 * half)
        return Costs(evaluated, doctor.seconds_of(decide, 2 * half), updating.result()), state


def time_text(settings: agents.Settings, decisions: int | None, costs: Costs) -> str:
    """The minutes to the run's end in words, and what they are made of. Args: as of `minutes`."""
    each = f"a decision takes {costs.decision:.3f} s, an update {costs.update:.3f} s"
    if decisions is None:
        return f"{each}; episodes have no time limit, so the run's minutes are unknown"
    return f"about {minutes(settings, decisions, costs):.0f} minutes to the run's end, an estimate: {each}"


def minutes(settings: agents.Settings, decisions: int, costs: Costs) -> float:
    """Estimated minutes of a run, without its seed episodes, compiling, drawing and saving.

    Args: decisions: of an episode of every task, in all; costs: Costs.
    """
    train, every, tasks = settings.train, settings.evaluation.every, len(settings.tasks)
    seeds = train.seed_episodes * tasks
    passes = (train.episodes - seeds) / (train.num_envs * tasks)
    acting = decisions * costs.decision
    updating = train.updates_per_episode * train.num_envs * tasks * costs.update
    each = max(acting, updating) if train.overlap else acting + updating
    evaluations = -(-train.episodes // every) - seeds // every
    return (passes * each + evaluations * decisions * costs.evaluated) / 60


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
