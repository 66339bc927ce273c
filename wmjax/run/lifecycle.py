"""Runs of one or many agents in one program: their tasks, seeds, keys, environments, replay, folders and reports.

A member is the run of its task and seed: its keys depend on the seed alone, its environments are a pool of their own.
"""

import json

from wmjax import console
from wmjax.report import page
from wmjax.report.metrics import read_metrics
from wmjax.report.page import drop_summary, write_population_report, write_report, write_summary
from wmjax.run.members import member
from wmjax.storage import checkpoint, files, workdir
from wmjax.types import UsageError


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
        files.atomic_write(places[-1] / workdir.CONFIG, json.dumps(own, indent=1) + "\n")
    return places


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


def write_summaries(folder, members, shared, axis):
    """summary.json of every member, and of a population.

    Args: shared: what the summaries hold beside the evaluations; axis: the metric that counts phases of training.
    """
    for place in dict.fromkeys([*members, folder]):  # in a population the folder itself has no evaluations
        rows = [row for row in read_metrics(place) if "eval/return_mean" in row]
        wanted = (axis, "env_steps", "eval/return_mean", "eval/return_std")
        summary = shared | dict(evaluations=[{name: row[name] for name in wanted} for row in rows])
        console.try_drawing(write_summary, place, summary)


def write_references(members, returns):
    """Leaves returns to compare a member's own with in its folder. returns: {name: return} of each, {} for none."""
    for place, own in zip(members, returns, strict=True):
        if own:
            console.try_drawing(page.write_references, place, own)


def write_reports(folder, members):
    """The report of every member, and of a population all of them together.

    Returns: the file to look at first; None, after a warning, if it could not be written.
    """
    pages = [console.try_drawing(write_report, place) for place in members]
    return pages[0] if len(members) == 1 else console.try_drawing(write_population_report, folder, members)
