"""MiniPacman: every mode against plain Python, mazes, ghosts, random play, refusals."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.minipacman_by_hand import DIRECTIONS, GHOSTS, Row
from wmjax import envs
from wmjax.envs import minipacman
from wmjax.types import UsageError

ROWS, STEPS, LIMIT = 50, 200, 1000
MAZE_OF = dict(regular="15x19", avoid="9x11", hunt="9x11", ambush="9x11", rush="9x11")


@functools.cache
def made(mode):
    """(JaxEnv, reset(key, rows), play(game, keys [T], actions [T, E]) -> (game, Step [T, E])), compiled once."""
    env = minipacman.make_env(mode, dict(maze=MAZE_OF[mode], observe="image+state"))
    play = lambda game, *xs: jax.lax.scan(lambda game, x: env.step(x[0], game, x[1]), game, xs)
    return env, jax.jit(env.reset, static_argnums=1), jax.jit(play)


def play_by_chance(mode, seed, change=lambda game: game):
    """(the Game begun with, keys [T], actions [T, E], the Game at the end, Step [T, E])."""
    _, reset, play = made(mode)
    start = change(reset(jax.random.key(seed), ROWS)[0])
    keys, rng = jax.random.split(jax.random.key(seed + 1), STEPS), np.random.default_rng(seed)
    actions = rng.integers(0, 5, (STEPS, ROWS)).astype(np.int32)
    return start, keys, actions, *jax.tree.map(np.array, play(start, keys, actions))


def rare_starts(game):
    """The Game with rows near the end of a level or an episode, in higher levels, or with four ghosts on Pac-Man."""
    rows, cells = np.arange(ROWS), np.arange(game.food.shape[1])
    columns = 19 if len(cells) == 15 * 19 else 11
    pacman = np.array(game.pacman)[:, None]
    near = abs(cells // columns - pacman // columns) + abs(cells % columns - pacman % columns) <= 1
    ghosts = np.where((rows % 3 == 1)[:, None] & (np.arange(GHOSTS) < 4), pacman, game.ghosts)
    integers = dict(
        level=1 + rows % 8,
        level_steps=np.where(rows % 5 == 0, 110, 0),
        steps=np.where(rows % 5 == 1, LIMIT - 15, 0),
        power=np.where(rows % 3 == 1, 20, 0),
        ghosts=ghosts,
        heading=np.where(ghosts > 0, game.heading[:, :1], 0),
    )
    food = np.where((rows % 2 == 0)[:, None], game.food & near, game.food)
    return game._replace(food=food, **{name: jnp.asarray(x, jnp.int32) for name, x in integers.items()})


def by_hand(game, row, mode):
    """The Row that is row number `row` of a Game."""
    own, hand = jax.tree.map(lambda x: np.array(x[row]), game), Row(minipacman.MAZES[MAZE_OF[mode]], mode, LIMIT)
    place = lambda cell: divmod(int(cell), hand.maze.shape[1])
    hand.food = own.food.reshape(hand.maze.shape)
    hand.pills, hand.pacman = [place(cell) for cell in own.pills if cell], place(own.pacman)
    ghosts = zip(own.ghosts, own.heading, strict=True)
    hand.ghosts = [[place(cell), DIRECTIONS[heading]] if cell else None for cell, heading in ghosts]
    hand.power, hand.level, hand.level_steps = int(own.power), int(own.level), int(own.level_steps)
    hand.steps, hand.over = int(own.steps), False
    return hand


@pytest.mark.parametrize("mode", MAZE_OF)
def test_equals_plain_python(mode):
    """10,000 steps of rows with the same uniforms; what has to happen for that to say something does."""
    start, keys, actions, _, steps = play_by_chance(mode, 0, rare_starts)
    uniforms = np.array(jax.vmap(lambda key: jax.random.uniform(key, (ROWS, minipacman.UNIFORMS)))(keys))
    seen, state = collections.Counter(), steps.obs["state"]
    for row in range(ROWS):
        hand = by_hand(start, row, mode)
        for time in range(STEPS):
            at, where = (time, row), f"row {row}, time {time}"
            reward, discount, is_first, is_last = hand.step(actions[at], uniforms[at])
            assert abs(steps.reward[at] - reward) < 1e-5, where
            assert (steps.discount[at], steps.is_first[at], steps.is_last[at]) == (discount, is_first, is_last), where
            assert steps.prev_action[at] == (0 if is_first else actions[at]), where
            assert (steps.obs["image"][at] == hand.image()).all(), where
            assert (state.level[at], state.power[at], state.steps[at]) == (hand.level, hand.power, hand.steps), where
        seen += hand.seen
    often = ("level", "dead", "time limit", "episode", "pill", "ghost eaten", "wandered", "crossing with power")
    assert all(seen[name] >= 3 for name in often), seen


def test_the_first_step_of_all():
    env, reset, _ = made("hunt")
    key = jax.random.key(5)
    _, step = reset(key, ROWS)
    uniforms = np.array(jax.random.uniform(key, (ROWS, minipacman.UNIFORMS)))
    for row in range(ROWS):
        hand = Row(minipacman.MAZES["9x11"], "hunt", LIMIT)
        hand.begin_episode(uniforms[row])
        np.testing.assert_array_equal(step.obs["image"][row], hand.image())
    assert step.is_first.all() and not step.is_last.any() and (step.discount == 1).all() and not step.reward.any()


def test_ghosts_never_turn_back():
    """Cell by cell within a level, whatever their headings say."""
    state = play_by_chance("hunt", 1)[-1].obs["state"]
    moves = 0
    for row in range(ROWS):
        trail = []
        for time in range(STEPS):
            cell, begins = state.ghosts[time, row, 0], state.level_steps[time, row] == 0
            if begins or not trail:
                trail = [cell]
            elif cell != trail[-1]:
                trail.append(cell)
            assert len(trail) < 3 or trail[-1] != trail[-3]
            moves += not begins and len(trail) > 1
    assert moves > 1000


def test_random_play_in_the_large_maze():
    """About 8.4 an episode of 43 steps in another maze of this size, by a sketch of the game."""
    rewards, episodes = 0, 0
    for seed in range(2, 5):
        steps = play_by_chance("regular", seed)[-1]
        rewards, episodes = rewards + steps.reward.sum(), episodes + steps.is_last.sum()
    assert 6.5 < rewards / episodes < 12 and 35 < 3 * STEPS * ROWS / episodes < 75


@pytest.mark.parametrize("name", minipacman.MAZES)
def test_mazes_are_corridors_without_dead_ends(name):
    text = minipacman.MAZES[name].split()
    walls = np.array([list(line) for line in text]) == "#"
    assert "x".join(map(str, walls.shape)) == name
    assert walls[[0, -1]].all() and walls[:, [0, -1]].all()
    assert (walls[1:, 1:] | walls[1:, :-1] | walls[:-1, 1:] | walls[:-1, :-1]).all()  # one cell wide
    free = {tuple(place) for place in np.argwhere(~walls).tolist()}
    around = lambda place: {(place[0] + down, place[1] + right) for down, right in DIRECTIONS} & free
    assert all(len(around(place)) >= 2 for place in free)
    reached, edge = set(), {min(free)}
    while edge:
        reached |= edge
        edge = set().union(*map(around, edge)) - reached
    assert reached == free


def test_one_pixel_a_cell():
    for maze, shape in (("15x19", (15, 19, 3)), ("9x11", (9, 11, 3))):
        spec = envs.make_jax("minipacman:hunt", maze=maze, episode_steps=7).spec
        assert spec.obs_shape == shape and spec.obs_dtype == np.uint8 and spec.time_limit == 7
        assert spec.action == (5, True, 0, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("minipacman:hant", {}, "unknown minipacman mode 'hant'. Did you mean hunt"),
        ("minipacman:hunt", dict(maze="9x12"), "unknown maze '9x12'. Did you mean 9x11"),
        ("minipacman:hunt", dict(episode_steps=0), "episode_steps=0"),
        ("minipacman:hunt", dict(observe="state"), "unknown observe 'state'"),
        ("minipacman:hunt", dict(size=64), "unknown minipacman option 'size'"),
    ],
)
def test_refusals(name, options, message):
    for make in (lambda: envs.make(name, 1, 0, **options), lambda: envs.make_jax(name, **options)):
        with pytest.raises(UsageError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("action", [np.zeros(2, np.float32), np.zeros((2, 5), np.int32)], ids=["floats", "one-hot"])
def test_actions_that_are_no_numbers_of_moves_are_refused(action):
    """Nothing in jit could say so later: they would be taken for no move."""
    env = envs.make_jax("minipacman:hunt", maze="9x11")
    with pytest.raises(AssertionError, match="Chex"):
        jax.eval_shape(lambda: env.step(jax.random.key(0), env.reset(jax.random.key(0), 2)[0], action))
