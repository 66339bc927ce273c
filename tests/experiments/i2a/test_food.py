"""The table of what an agent of MiniPacman does by the distance to food."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.i2a import agent, food
from tests import mains
from wmjax.envs import minipacman
from wmjax.types import Actor

RING = """
    #####
    #...#
    #.#.#
    #...#
    #####
"""


def test_steps_go_around_walls():
    steps = food.steps_between(minipacman.read_maze(RING))
    around = [6, 7, 8, 13, 18, 17, 16, 11]  # cells of the ring, in its order
    apart = np.abs(np.subtract.outer(range(8), range(8)))
    assert np.array_equal(steps[np.ix_(around, around)], np.minimum(apart, 8 - apart))
    assert (steps[12] == food.UNREACHED).all() and (steps[:, 0] == food.UNREACHED).all()


def test_a_decision_ends_on_food_where_the_game_pays_for_it():
    logits = jnp.array([0.0, 1.0, 2.0, 1.0, 1.0])

    def act(params, key, carry, step, explore):
        rows = len(step.reward)
        return carry, jax.random.categorical(key, logits, shape=(rows,)), jnp.broadcast_to(logits, (rows, 5))

    by_chance = agent.Loaded(Actor(lambda params, rows: (), act), {}, "minipacman:regular", dict(maze="9x11"), 0)
    steps = food.steps_between(minipacman.read_maze(minipacman.MAZES["9x11"]))
    played = jax.tree.map(np.asarray, food.make_play(by_chance, 16, 150, steps)({}, jax.random.key(0)))
    counts, before, after = played["counts"], played["before"], played["after"]
    assert counts[0].all() and 0 < counts[-1].sum() < 16 and (np.diff(counts.astype(int), axis=0) <= 0).all()
    ate = np.isin(played["reward"], [1, 3, 6, 8])  # food, and with it a pill of 2, a ghost of 5
    assert np.array_equal(ate[counts], after[counts] == 0) and ate[counts].any()
    assert (abs(after - before) <= 1)[counts].all()
    assert np.array_equal((counts[:-1] & ~counts[1:]), (counts & played["died"])[:-1])
    policy = np.exp(logits) / np.exp(logits).sum()
    assert played["entropy"] == pytest.approx(-(policy * np.log(policy)).sum(), abs=1e-5)


def test_groups_hold_the_first_episodes_alone():
    column = lambda *values: np.array(values)[:, None]
    played = dict(
        counts=column(True, True, True, False),
        before=column(1, 4, 5, 1),
        after=column(0, 3, 6, 1),
        entropy=column(0.5, 1.0, 2.0, 9.0),
        died=column(False, False, True, True),
    )
    near, far = food.groups(played)
    assert near == dict(first=1, last=1, decisions=1, share=1 / 3, closer=1, away=0, deaths=0, entropy=0.5)
    assert far == dict(first=4, last=5, decisions=2, share=2 / 3, closer=0.5, away=0.5, deaths=0.5, entropy=1.5)
    assert food.words(far) == ["4 to 5", "2", "67%", "1.50", "50%", "50%", "50.0%"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [([], "give --workdir=DIR, the folder of a run"), (["--workdir={folder}"], "is not the working folder of a run")],
)
def test_without_a_run_it_ends_at_once(flags, message, tmp_path):
    folder = tmp_path / "none"
    ended = mains.call("i2a.food", *(flag.format(folder=folder) for flag in flags))
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1
    assert not folder.exists()
