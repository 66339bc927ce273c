"""The life of a run around its training loop, which stays in the main.

    run = lifecycle.open_run(...)        refuses before anything is touched; from here on the folder is this process's
    saved = run.restore(template)        the newest checkpoint; metrics are cut back to it, clocks go on
    while run.goes_on(done):             until the plan is done, a signal came or --minutes are over
        ...
        run.write(counted, rows)         a line of metrics for each member, one line on the screen
        run.hold(done, state)            what a checkpoint would hold now
        run.save()                       when it is due
    run.finish(done, counted)            checkpoint, summary, report, exit code

A population is one run of many agents: its members share checkpoint and replay, each has a folder with metrics, videos,
report and config of its own.
"""

import contextlib
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wmjax import console
from wmjax.report import artifacts
from wmjax.report.artifacts import SUMMARY, drop_summary, write_summary
from wmjax.report.metrics import MetricsWriter, read_metrics
from wmjax.report.page import write_population_report, write_report
from wmjax.report.progress import Progress
from wmjax.report.video import check_ffmpeg
from wmjax.run import processes, stop
from wmjax.run.members import Member, mean_of, member, short_name
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import checkpoint, files, workdir
from wmjax.types import Step, UsageError

EVALUATED = ("eval/return_mean", "eval/return_std", "eval/loss", "eval/loss_tighter")  # what summaries hold of each


class Run:
    """An open run. folder: its own; member_folders: one for each agent, the run's own where there is one agent.

    Args of the class: planned: how many of `unit` ("episode", "iteration", "update") the run is long; minutes: the
    wall-clock limit of this process, or None; keep: how many checkpoints stay.
    """

    def __init__(
        self, folder: Path, member_folders: list[Path], unit: str, planned: int, minutes: float | None, keep: int
    ) -> None:
        self.folder, self.member_folders = folder, member_folders
        self.stopwatch = Stopwatch()
        self._unit, self._planned, self._minutes, self._keep = unit, planned, minutes, keep
        self._writers: list[MetricsWriter] = []  # of each member, where this process writes
        self._evaluation: float | None = None  # seconds of the newest one
        self._row_begun = 0.0  # minutes of the run when the newest row of metrics was written
        self._held: tuple[int, dict] | None = None  # the newest state to go back to
        self._unsaved = False  # whether it is newer than the newest checkpoint
        self._saved_at = 0.0  # minutes of this process at the newest checkpoint

    def restore(self, template: dict) -> dict | None:
        """Goes back to the newest checkpoint, or begins; metrics and clocks are there from then on.

        Args: template: the state as of `checkpoint.restore_latest`.
        Returns: the saved state, None if there is none.
        Raises: UsageError where there was one, but no longer.
        """
        restored = checkpoint.restore_latest(self.folder, template | dict(run=checkpoint.AS_SAVED))
        ended = not restored and (self.folder / SUMMARY).exists()  # after a checkpoint, which `finish` writes first
        if ended and any(map(read_metrics, self.member_folders)):
            raise UsageError(f"{self.folder} has results, but its checkpoints are gone: choose another folder")
        state: dict[str, Any] = restored[1] if restored else {}
        clocks: dict[str, Any] = state.pop("run", dict(minutes=0.0, row_begun=0.0, metrics_bytes=None))
        begun = clocks["metrics_bytes"] or [0] * len(self.member_folders)
        if processes.is_first():
            begins = zip(self.member_folders, begun, strict=True)
            self._writers = [MetricsWriter(path, offset) for path, offset in begins]
            for path in (self.folder, *self.member_folders):
                drop_summary(path)
        self._row_begun = clocks["row_begun"]
        self.progress = Progress(self._planned, self._minutes, done_minutes=clocks["minutes"], unit=self._unit)
        if not restored:
            self.write_reports()
            return None
        console.say(f"resumed after {self._unit} {restored[0]}")
        return state

    def goes_on(self, done: int) -> bool:
        """Whether there is more to do, no signal came and there is time left for more than a last evaluation."""
        if done >= self._planned or processes.asked():
            return False
        return not processes.of_first(lambda: self.progress.out_of_time(self._evaluation))

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation: its seconds are kept free at the end of --minutes."""
        begun = time.monotonic()
        with self.stopwatch("evaluate"):
            yield
        self._evaluation = time.monotonic() - begun

    def write(self, counted: Mapping[str, int], rows: Sequence[dict[str, Any]]) -> None:
        """Writes a line of metrics for each member and shows how far the run is.

        Args: counted: the axes of the metrics, the same for all; rows: metrics of each member.
        """
        now = self.progress.elapsed_minutes()
        shared = dict(counted) | self.stopwatch.flush() | {"time/total": 60 * (now - self._row_begun)}
        self._row_begun = now
        self.write_lines([shared | row for row in rows])
        self.progress.show(shared | mean_of(rows))

    def write_lines(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes a line of metrics for each member, as it is."""
        if processes.is_first():
            for writer, row in zip(self._writers, rows, strict=True):
                writer.write(row)

    def hold(self, done: int, state: dict) -> None:
        """Keeps what `save` and `finish` write: the state that a run which is stopped from here on goes back to.

        Args: done: of the run's unit, which orders checkpoints; state: as of `checkpoint.save`.
        """
        clocks: dict[str, Any] = dict(minutes=self.progress.elapsed_minutes(), row_begun=self._row_begun)
        clocks |= dict(metrics_bytes=[writer.offset for writer in self._writers])
        self._unsaved = self._held is not None  # the first one is what the run began with
        self._held = (done, state | dict(run=clocks))

    def held(self) -> dict:
        """The state of the newest `hold`."""
        assert self._held is not None
        return self._held[1]

    def save(self) -> None:
        """Writes the newest held state as a checkpoint, unless it was."""
        if self._held and self._unsaved:
            if processes.is_first():
                done, state = self._held
                checkpoint.save(self.folder, done, processes.to_host(state), keep=self._keep)
            self._unsaved, self._saved_at = False, self.progress.minutes_here()

    def append_rows(self, index: int, steps: Step, rows: str = checkpoint.REPLAY) -> None:
        """Writes what was played, numpy Step [T, E, ...], as a file of the folder: as of `checkpoint.append_rows`."""
        if processes.is_first():
            checkpoint.append_rows(self.folder, index, steps, rows)

    def drop_rows_from(self, index: int, rows: str = checkpoint.REPLAY) -> None:
        """Removes the files that the restored state does not count: as of `checkpoint.drop_rows_from`."""
        if processes.is_first():
            checkpoint.drop_rows_from(self.folder, index, rows)

    def minutes_unsaved(self) -> float:
        """Minutes since the newest checkpoint of this process."""
        return self.progress.minutes_here() - self._saved_at

    def is_cut_short(self, done: int) -> bool:
        """Whether --minutes ended the run before its end: a last evaluation is due.

        A resumed run cuts its lines off again, for the checkpoint counts those before it: save first.
        """
        return done < self._planned and not processes.asked()

    def finish(self, done: int, counted: Mapping[str, Any]) -> None:
        """Writes checkpoint, summaries and reports; raises stop.Stopped where a signal ended the run early.

        Args: counted: the axes of the metrics, and whatever else the summaries are to hold.
        """
        self.save()
        self.progress.close()
        for writer in self._writers:
            writer.close()
        finished = done >= self._planned
        ended: dict[str, Any] = dict(finished=finished, minutes=self.progress.elapsed_minutes())
        write_summaries(
            self.folder,
            self.member_folders,
            ended | dict(planned={f"{self._unit}s": self._planned}) | dict(counted),
            (f"{self._unit}s", "env_steps", *EVALUATED),
        )
        console.say(f"report: {self.write_reports() or 'could not be written'}")
        if not finished:
            processes.check()

    def write_reports(self) -> Path | None:
        """As the function of that name."""
        return write_reports(self.folder, self.member_folders)


def open_run(
    folder: Path,
    config: dict,
    members: Sequence[Member],
    *,
    may_differ: Collection[str],
    unit: str,
    planned: int,
    minutes: float | None,
    keep: int,
    pictures: Sequence[artifacts.Picture] = (),
) -> Run:
    """Opens the working folder, makes the members' folders and begins to listen for signals.

    The number of devices is not kept in the folder's config: a run may go on with another.

    Args:
        folder: of the run.
        config: as plain dicts.
        members: of the program; one for a run that has no population.
        may_differ: as of `workdir.open_workdir`.
        unit, planned, minutes, keep: as of `Run`.
        pictures: the kinds that the main draws, for the report.

    Raises:
        UsageError: as `workdir.open_workdir`.
    """
    member_folders = processes.of_first(lambda: open_folders(folder, config, members, may_differ))
    for path in member_folders:
        console.try_drawing(artifacts.write_pictures, path, pictures)
    stop.listen()
    console.try_drawing(check_ffmpeg)
    return Run(folder, member_folders, unit, planned, minutes, keep)


def open_folders(folder: Path, config: dict, members: Sequence[Member], may_differ: Collection[str] = ()) -> list[Path]:
    """Opens the working folder and makes those of the members, which it returns. Arguments as of `open_run`."""
    kept = {name: value for name, value in config.items() if name != "devices"}
    workdir.open_workdir(folder, kept, may_differ)
    member_folders = [folder]
    if len(members) > 1:
        member_folders = [folder / name for name in folder_names(members)]
        for path, member in zip(member_folders, members, strict=True):
            path.mkdir(exist_ok=True)
            settings = kept | member._asdict() | dict(population=1)
            files.atomic_write(path / workdir.CONFIG, json.dumps(settings, indent=1) + "\n")
    return member_folders


def folder_names(members: Sequence[Member]) -> list[str]:
    """seed_<n> of each member; of several tasks Pong_seed_<n>, Boxing_seed_<n>, ..."""
    several = len({member.task for member in members}) > 1
    return [(f"{short_name(task)}_" if several else "") + f"seed_{seed}" for task, seed in members]


def restore_saved(folder: Path, template: dict) -> tuple[int, dict]:
    """(step, state) of a run's newest checkpoint, as of `checkpoint.restore_latest`; UsageError if there is none."""
    restored = checkpoint.restore_latest(folder, template | dict(run=checkpoint.AS_SAVED))
    if restored is None:
        raise UsageError(f"{folder} has no checkpoint yet")
    return restored


def acting_part(learner: Any) -> Any:
    """A LearnerState's template for those who act: optimiser, and parameters that do not act, AS_SAVED or absent."""
    params = learner.params if learner.acting is None else checkpoint.AS_SAVED
    return learner.replace(params=params, opt_state=checkpoint.AS_SAVED)


def restore_member(folder: Path, template: dict, index: int) -> tuple[int, dict]:
    """What one member needs to act, from the newest checkpoint.

    Args: template: dict as of `checkpoint.restore_latest`; its arrays have a leading axis [S], and what is AS_SAVED is
      left out of the result. index: which member, counted from 0.
    Returns: (step of the checkpoint, the rest of the dict without that axis).
    Raises: UsageError if there is no checkpoint.
    """
    wanted = {name: tree for name, tree in template.items() if tree is not checkpoint.AS_SAVED}
    step, state = restore_saved(folder, template)
    return step, {name: member(state[name], index) for name in wanted}


def write_summaries(folder: Path, member_folders: Sequence[Path], shared: dict, names: Sequence[str]) -> None:
    """summary.json of every member, and of a population.

    Args: shared: what the summaries hold beside the evaluations; names: metrics that are kept of each of those.
    """
    for path in dict.fromkeys([*member_folders, folder]):  # in a population the folder itself has no evaluations
        rows = [row for row in read_metrics(path) if any(name in row for name in EVALUATED)]
        evaluations = [{name: row[name] for name in names if name in row} for row in rows]
        console.try_drawing(write_summary, path, shared | dict(evaluations=evaluations))


def write_references(member_folders: Sequence[Path], returns: Sequence[Mapping[str, float]]) -> None:
    """Leaves returns to compare a member's own with in its folder. returns: {name: return} of each, {} for none."""
    for path, references in zip(member_folders, returns, strict=True):
        if references:
            console.try_drawing(artifacts.write_references, path, references)


def write_reports(folder: Path, member_folders: Sequence[Path]) -> Path | None:
    """The report of every member, and of a population all of them together.

    Returns: the file to look at first; None, after a warning, if it could not be written.
    """
    pages = [console.try_drawing(write_report, path) for path in member_folders]
    return pages[0] if len(pages) == 1 else console.try_drawing(write_population_report, folder, member_folders)
