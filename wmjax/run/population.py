"""Runs of one or many agents in one program: their tasks, seeds, keys, environments, replay, folders and reports.

A member is the run of its task and seed: its keys depend on the seed alone, its environments are a pool of their own.
"""

import json
from typing import NamedTuple

import jax
import numpy as np

from wmjax import envs, replay
from wmjax.envs.joined import JoinedVecEnv
from wmjax.run import checkpoint, devices, report, talk, workdir
from wmjax.run.collect import padded
from wmjax.run.members import by_member, member
from wmjax.run.metrics import read_metrics
from wmjax.run.report import drop_summary, write_population_report, write_report, write_summary
from wmjax.types import UsageError

MOST_MEMBERS = 1024
LARGEST_SEED = 2**31 - 1 - MOST_MEMBERS  # of the first member
PIECE = 128  # rows of time that one dispatch writes into a replay


class Member(NamedTuple):
    """What tells one agent of a program from the others."""

    task: str
    seed: int


def make_members(task, seed, population):
    """A tuple of Member: every task of "first+second+...", each with the seeds seed, seed + 1, ...

    Raises: UsageError for numbers out of range and for a task that is named twice.
    """
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"config.seed={seed!r}: must be an integer from 0 to {LARGEST_SEED}")
    tasks = task.split("+")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"config.task={task!r}: names one task twice; config.population is for several seeds")
    most = MOST_MEMBERS // len(tasks)
    if type(population) is not int or not 1 <= population <= most:
        raise UsageError(f"config.population={population!r}: must be an integer from 1 to {most} for each task")
    return tuple(Member(each, seed + i) for each in tasks for i in range(population))


def member_keys(members, count):
    """`count` arrays of keys, [S] each; a member's depend on its seed alone."""
    seeds = np.array([each.seed for each in members], np.uint32)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), count))(seeds).T


def first_step(members, rows, options):
    """(EnvSpec, Step [E]) of environments made for this alone: what each member's will be like, before all are made.

    Raises: UsageError where two tasks do not fit one program.
    """
    first, *others = [each for each in members if each.seed == members[0].seed]
    env = envs.make(first.task, rows, first.seed, **options)
    step = env.reset()
    env.close()
    for other in others:
        another = envs.make(other.task, rows, other.seed, **options)
        another.close()
        for name, one, two in zip(env.spec._fields, env.spec, another.spec, strict=True):
            if one != two:
                raise UsageError(f"{first.task} and {other.task} do not fit one program: {name} {one} and {two}")
    return env.spec, step


def join_envs(members, rows, options, purpose="train"):
    """One pool for every member, `rows` environments each, as one VecEnv; purpose: as of `wmjax.envs.make`."""
    return JoinedVecEnv([envs.make(each.task, rows, each.seed, purpose=purpose, **options) for each in members])


def check_memory(capacity, num_envs, example, members, mesh):
    """Raises UsageError unless the replays of all members fit; arguments as in `make_memory`."""
    on_one = members * replay.nbytes(capacity, example) // (1 if jax.default_backend() == "cpu" else mesh.size)
    replay.check_fits(on_one, f"replay of {capacity} rows for {members} x {num_envs} environments")


def make_memory(capacity, num_envs, example, members, mesh):
    """An empty replay for every member [S]; raises UsageError if they do not fit.

    Args: capacity: rows of each environment; num_envs: E; example: Step [E]. Environments are split over the mesh.
    """
    check_memory(capacity, num_envs, example, members, mesh)
    whole, rows = devices.replicated(mesh), devices.split(mesh, 1)
    places = replay.Replay(rows=rows, cursor=whole, filled=whole)

    def one(_):
        return replay.init(capacity, num_envs, example)

    return jax.jit(jax.vmap(one), out_shardings=places)(np.arange(members))


def make_extend(memory):
    """A function (memory, steps) -> memory: appends numpy Step [T, S * E, ...] to the members' replays, in place.

    Rows go in by pieces of one length, the last of them padded, so that every T has the same program.
    """
    members, _, capacity = memory.rows.reward.shape
    length = min(PIECE, capacity)

    def write(memory, piece, count):
        piece = by_member(piece, members, axis=1)
        return jax.vmap(replay.extend, (0, 1, None))(memory, piece, count)

    write = jax.jit(write, donate_argnums=0, out_shardings=jax.tree.map(lambda x: x.sharding, memory))

    def extend(memory, steps):
        for first in range(0, len(steps.reward), length):
            piece = member(steps, slice(first, first + length))
            memory = write(memory, padded(piece, length), np.int32(len(piece.reward)))
        return memory

    return extend


def mean_of(rows):
    """The mean over members of every metric. rows: one dict for each member, with the same names."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def open_folders(folder, config, members, may_differ=()):
    """Opens the working folder; returns the folder of every member: itself in a single run, else seed_<n> in it.

    Of several tasks: Pong_seed_<n>, Boxing_seed_<n>, ...

    A member's folder is that of a single run without checkpoint and replay, which all members share. The number of
    devices is not kept: a run may go on with another. may_differ: as of `workdir.open_workdir`.
    """
    kept = {name: value for name, value in config.to_dict().items() if name != "devices"}
    workdir.open_workdir(folder, kept, may_differ)
    drop_summary(folder)
    if len(members) == 1:
        return [folder]
    several = len({each.task for each in members}) > 1
    places = []
    for each in members:
        task = f"{each.task.split(':')[-1]}_" if several else ""
        places.append(folder / f"{task}seed_{each.seed}")
        places[-1].mkdir(exist_ok=True)
        drop_summary(places[-1])
        own = kept | each._asdict() | dict(population=1)
        workdir.atomic_write(places[-1] / workdir.CONFIG, json.dumps(own, indent=1) + "\n")
    return places


def pick(members, index):
    """The Member of --member=index; raises UsageError if there are fewer."""
    if index >= len(members):
        raise UsageError(f"--member={index}: the run has {len(members)}, counted from 0")
    return members[index]


def restore_member(folder, template, index):
    """What one member needs to act, from the newest checkpoint.

    Args: template: dict as of `checkpoint.restore_latest`; its arrays have a leading axis [S], and what is AS_SAVED is
      left out of the result. index: which member, counted from 0.
    Returns: (step of the checkpoint, the rest of the dict, [1, ...]).
    Raises: UsageError if there is no checkpoint.
    """
    wanted = {name: tree for name, tree in template.items() if tree is not checkpoint.AS_SAVED}
    restored = checkpoint.restore_latest(folder, template)
    if restored is None:
        raise UsageError(f"{folder} has no checkpoint yet")
    step, state = restored
    return step, {name: member(state[name], slice(index, index + 1)) for name in wanted}


def evaluated(returns):
    """The metrics of one member's evaluation. returns: [episodes]."""
    each = {f"eval/return_{i}": value for i, value in enumerate(returns)}
    return {"eval/return_mean": returns.mean(), "eval/return_std": returns.std()} | each


def write_summaries(folder, members, shared, axis):
    """summary.json of every member, and of a population.

    Args: shared: what the summaries hold beside the evaluations; axis: the metric that counts phases of training.
    """
    for place in dict.fromkeys([*members, folder]):  # in a population the folder itself has no evaluations
        rows = [row for row in read_metrics(place) if "eval/return_mean" in row]
        wanted = (axis, "env_steps", "eval/return_mean", "eval/return_std")
        summary = shared | dict(evaluations=[{name: row[name] for name in wanted} for row in rows])
        talk.try_drawing(write_summary, place, summary)


def write_references(members, returns):
    """Leaves returns to compare a member's own with in its folder. returns: {name: return} of each, {} for none."""
    for place, own in zip(members, returns, strict=True):
        if own:
            talk.try_drawing(report.write_references, place, own)


def write_reports(folder, members):
    """The report of every member, and of a population all of them together.

    Returns: the file to look at first; None, after a warning, if it could not be written.
    """
    pages = [talk.try_drawing(write_report, place) for place in members]
    return pages[0] if len(members) == 1 else talk.try_drawing(write_population_report, folder, members)
