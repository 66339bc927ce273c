"""Pools of recorded episodes, for training or for tests: read from finished runs, told apart by content, cut."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from wmjax.run.members import member
from wmjax.storage import checkpoint, manifest
from wmjax.types import EnvSpec, Step, UsageError

TRAIN = (checkpoint.REPLAY,)  # folders of a run's rows, of which the first that there is counts
TEST = (checkpoint.EVALUATION, checkpoint.REPLAY)


class Episode(NamedTuple):
    steps: Step  # numpy, [T, 1]
    file: str  # it was read from


def read(folders: Iterable[str], rows: Sequence[str], spec: EnvSpec) -> dict[str, Episode]:
    """{digest: Episode} of every episode of the runs in `folders`, in order; equal episodes are there once.

    Runs of one seed begin with the same random episodes. Args: rows: TRAIN or TEST; spec: EnvSpec of the config.
    Raises: UsageError for a folder without episodes, and for other observations or actions than the config's.
    """
    found: dict[str, Episode] = {}
    for folder in folders:
        for name, episode in episodes(folder, rows):
            check_shapes(folder, episode.steps, spec)
            found.setdefault(name, episode)
    return found


def episodes(folder: str, rows: Sequence[str]) -> Iterator[tuple[str, Episode]]:
    """Yields (digest, Episode) of every episode of a run, one file after the other; UsageError where it has none."""
    counts = {name: checkpoint.count_rows(folder, name) for name in rows}
    name = next((name for name in rows if counts[name]), None)
    if name is None:
        raise UsageError(f"{folder} has no episodes in {' or '.join(rows)}/")
    for index, steps in enumerate(checkpoint.load_rows(folder, counts[name], name)):
        for episode in split(steps):
            yield manifest.digest(episode), Episode(episode, f"{folder}/{name}/{index:06d}.npz")


def check_shapes(folder: str, steps: Step, spec: EnvSpec) -> None:
    """Raises UsageError unless Step [T, E] has the observations and actions of an EnvSpec."""
    obs = jax.tree.map(lambda x: x.shape[2:], steps.obs)
    wanted = jax.tree.map(lambda x: x.shape, spec.obs)
    if obs != wanted:
        raise UsageError(f"{folder} has images {obs}, the config {wanted}")
    action, size = steps.prev_action.shape[2:], () if spec.action.discrete else (spec.action.size,)
    if action != size:
        raise UsageError(f"{folder} has actions {action}, the config {size}")


def split(steps: Step) -> list[Step]:
    """Step [T, E] -> its episodes, each a Step [t, 1]; the last one of a row may have no end."""
    episodes = []
    for row in range(steps.reward.shape[1]):
        begun = np.flatnonzero(steps.is_first[:, row])
        for first, after in zip(begun, [*begun[1:], len(steps.reward)], strict=True):
            episodes.append(member(steps, (slice(first, after), slice(row, row + 1))))
    return episodes


def digest(episodes: Iterable[str]) -> str:
    """sha256 of a pool, as of `read`, and its order: equal ones give the same chunks under equal keys."""
    return hashlib.sha256(" ".join(episodes).encode()).hexdigest()


def check_disjoint(train: Mapping[str, Episode], test: Mapping[str, Episode]) -> None:
    """Raises UsageError where an episode is in both pools."""
    both = [name for name in train if name in test]
    if both:
        files = f"{train[both[0]].file} and {test[both[0]].file}"
        raise UsageError(f"--train and --test have {len(both)} episodes in common, such as one of {files}")


def pieces_below(steps: Step, limit: float, least: int) -> list[Step]:
    """Pieces of an episode, Step [T, 1], whose rewards are all below `limit`: those of `least` rows or more.

    A piece's first row is marked as the first of an episode, so that no chunk spans two pieces.
    """
    rows = np.flatnonzero(steps.reward[:, 0] < limit)
    pieces = []
    for piece in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        if len(piece) >= least:
            own = member(steps, slice(piece[0], piece[-1] + 1))
            pieces.append(own.replace(is_first=(np.arange(len(piece)) == 0)[:, None]))
    return pieces
