"""Published returns on Atari after 100,000 interactions, and human-normalised scores under two tables of humans.

Those of Mnih et al. (2015), with which the paper normalises, and of Wang et al. (2016), with which most others do.
The numbers are in published/*.csv, which name their sources. All 36 games of the paper's Table 2 have random and human
scores in both tables; the two agree on random play, but on human play in ten games alone. Other games have no numbers.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.published import read
from wmjax.console import try_drawing
from wmjax.report.artifacts import Table, write_table
from wmjax.run.members import Member

FOLDER = pathlib.Path(__file__).parent / "published"
PAPER = "robine_2023.csv"
HUMANS = {"Mnih 2015": PAPER, "Wang 2016": "wang_2016.csv"}
AGENTS = {"paper, 1 frame": "swm1", "paper, 4 frames": "swm4", "SimPLe": "simple", "PPO 100k": "ppo"}
HNS = "HNS: human-normalised score, 0% is random play, 100% the human of Mnih et al. 2015 or of Wang et al. 2016."
NOTE = "±: standard deviation, of the newest evaluation over its episodes, of the published means over runs. " + HNS


def published(name: str) -> dict[str, dict[str, float]]:
    """A file of published numbers as {game: {column: number}}."""
    return read(FOLDER / name)


def game_of(task: str) -> str:
    """The name that a task has in the tables: "atari:Pong" is "Pong", others are themselves."""
    return task.removeprefix("atari:")


def normalised(score: Any, game: str) -> dict[str, Any]:
    """(score - random) / (human - random) for every table of humans: {name: number}; {} for a game without numbers.

    score: a number or an array of them.
    """
    found = {name: published(file).get(game) for name, file in HUMANS.items()}
    return {name: (score - of["random"]) / (of["human"] - of["random"]) for name, of in found.items() if of}


def percents(score: float, game: str) -> list[str]:
    """`normalised` as cells of a table, one for every table of humans; blank for a game without numbers."""
    found = normalised(score, game)
    return [f"{found[name]:.1%}" if name in found else "" for name in HUMANS]


def number(value: float) -> str:
    """A return as a cell of a table."""
    return f"{value:,.1f}"


def spread(mean: float, std: float | None) -> str:
    """A mean with its standard deviation as a cell; without it where that is None."""
    return number(mean) if std is None else f"{number(mean)} ± {number(std)}"


def references(task: str, frames: int) -> dict[str, float]:
    """Returns to compare a run's own with, {name: return}; {} for a game without numbers.

    Args: task: of the config; frames: in an image; the paper has 1 and 4.
    """
    paper = published(PAPER).get(game_of(task))
    if paper is None:
        return {}
    names = {1: "paper, 1 frame", 4: "paper, 4 frames"}
    own = {names[frames]: paper[f"{AGENTS[names[frames]]}_mean"]} if frames in names else {}
    return {"random": paper["random"]} | own


def report_table(task: str, mean: float, std: float) -> Table:
    """The newest evaluation of one run beside what is published of its game.

    Args: task: of the config; mean, std: over the episodes of the evaluation.
    Returns: Table; of a game without numbers only the evaluation.
    """
    game = game_of(task)
    rows = [["newest evaluation", spread(mean, std), *percents(mean, game)]]
    paper = published(PAPER).get(game)
    if paper:
        for name, column in AGENTS.items():
            score = paper[f"{column}_mean"]
            rows.append([name, spread(score, paper[f"{column}_std"]), *percents(score, game)])
        rows.append(["random", number(paper["random"]), *percents(paper["random"], game)])
        for name, file in HUMANS.items():
            score = published(file)[game]["human"]
            rows.append([f"human of {name}", number(score), *percents(score, game)])
    header = ["", "return", *(f"HNS, {name}" for name in HUMANS)]
    return Table("Scores", header, rows, NOTE)


GAMES = [
    "game", "seeds", "ours", *(f"HNS, {name}" for name in HUMANS), "random",
    *(f"human, {name}" for name in HUMANS), *AGENTS,
]  # fmt: skip


def game_row(game: str, ours: np.ndarray, seeds: str) -> list[str]:
    """The cells under GAMES, as text, blank where nothing is published. ours: scores [seeds]; seeds: their cell."""
    std = ours.std(ddof=1) if len(ours) > 1 else None
    row = [game, seeds, spread(ours.mean(), std), *percents(ours.mean(), game)]
    paper = published(PAPER).get(game)
    if paper is None:
        return row + [""] * (len(GAMES) - len(row))
    row += [number(paper["random"]), *(number(published(file)[game]["human"]) for file in HUMANS.values())]
    return row + [spread(paper[f"{each}_mean"], paper[f"{each}_std"]) for each in AGENTS.values()]


def population_table(tasks: Sequence[str], means: Sequence[float]) -> Table:
    """The newest evaluations of a population, game by game. tasks: of its members; means: of their evaluations."""
    games = {}
    for task, mean in zip(tasks, means, strict=True):
        games.setdefault(game_of(task), []).append(mean)
    rows = [game_row(game, np.array(ours), str(len(ours))) for game, ours in games.items()]
    return Table("Scores", GAMES, rows, "±: standard deviation over seeds, ours and the published ones. " + HNS)


def write_tables(
    folder: pathlib.Path,
    member_folders: Sequence[pathlib.Path],
    members: Sequence[Member],
    rows: Sequence[dict[str, Any]],
) -> None:
    """Leaves each member's newest evaluation beside published scores for its report, and for a population's.

    rows: metrics of each member. A table that cannot be written is a warning.
    """
    for member_folder, of, row in zip(member_folders, members, rows, strict=True):
        table = report_table(of.task, row["eval/return_mean"], row["eval/return_std"])
        try_drawing(write_table, member_folder, table)
    if len(members) > 1:
        means = [row["eval/return_mean"] for row in rows]
        try_drawing(write_table, folder, population_table([of.task for of in members], means))
