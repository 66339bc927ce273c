"""MiniPacman in pure JAX: five games in one maze (Weber et al. 2017, whose agents imagine in it).

"minipacman:regular"   eat all food              "minipacman:ambush"   eat ghosts, and no food
"minipacman:avoid"     stay alive and eat little "minipacman:rush"     eat the power pills
"minipacman:hunt"      eat ghosts

Pac-Man walks in corridors one cell wide. A level begins with food on every free cell, Pac-Man and two power pills on
free cells by chance, and 1 + (level - 1) // 2 ghosts, at most GHOSTS, outside the square of 5 x 5 cells around Pac-Man.
When it ends (LEVEL_ENDS) everything is set up anew within the same episode, and ghosts get faster. A step, in this
order:

    1  one step of power is used up
    2  Pac-Man moves where its action leads, unless a wall is there; it eats food; it eats a pill: POWER steps of power
    3  each ghost moves by chance (SPEED), unless Pac-Man stands on it; either way they may then be in one cell
    4  a ghost in Pac-Man's cell: one of them is eaten where there is power, or else Pac-Man dies, a true end
    5  the level ends, or the episode after its last step, with discount 1

A ghost never turns back; it begins as if it had come from any cell beside its own. Where several ways lead on it takes
the one with the largest inner product with the vector to Pac-Man, with power the smallest, the first of equal ones in
the order up, right, left, down, and by chance (WANDER) any.

Actions: noop, up, right, left, down. An image has one pixel a cell: walls white, food blue, pills cyan, Pac-Man green,
ghosts red, and the yellower the more power there is. Published sources of the game differ in details; the mazes, the
size of the square and the largest number of ghosts are ours.

Options of `make("minipacman:hunt", num_envs, seed, ...)`: maze, 15x19 (the default) or 9x11; episode_steps (1000);
observe (image): image+state shows {"image": ..., "state": the environment's own state, a Game}.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from wmjax.envs.check import check_int, check_name, check_options
from wmjax.envs.jax_env import JaxVecEnv
from wmjax.types import ActionSpec, Array, EnvSpec, JaxEnv, Step

GHOSTS = 8  # at most; level 15 has so many
POWER = 20  # steps
SPEED, FASTER = 0.5, 0.1  # probability that a ghost moves: in level 1, added by each further level; half with power
WANDER = 0.05  # probability that a ghost takes any way at a crossing
NEAR = 2  # rows and columns around Pac-Man where no ghost begins


class Rewards(NamedTuple):
    step: float
    food: float
    pill: float
    ghost: float  # eaten
    death: float


REWARDS = dict(
    regular=Rewards(0, 1, 2, 5, 0),
    avoid=Rewards(0.1, -0.1, -5, -10, -20),
    hunt=Rewards(0, 0, 1, 10, -20),
    ambush=Rewards(0, -0.1, 0, 10, -20),
    rush=Rewards(0, -0.1, 10, 0, 0),
)
LEVEL_ENDS = dict(regular="food", avoid="food or steps", hunt="ghosts", ambush="ghosts", rush="pills")  # are gone
LEVEL_STEPS = 128  # of "food or steps"

WALL, FOOD, PILL, PACMAN = (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0)
GHOST, YELLOW = (255, 0, 0), (0, 255, 0)  # of a ghost, and what the fullest power adds

MAZES = {
    "15x19": """
        ###################
        #...#.........#...#
        #.#.#.###.###.#.#.#
        #.#...#.....#...#.#
        #.###.#.###.#.###.#
        #.....#.....#.....#
        #.#.###.#.#.###.#.#
        #...#.........#...#
        #.###.#.###.#.###.#
        #.....#.....#.....#
        #.#.###.#.#.###.#.#
        #.#...#.....#...#.#
        #.###.#.###.#.###.#
        #.................#
        ###################
    """,
    "9x11": """
        ###########
        #.........#
        #.#.###.#.#
        #.#.....#.#
        #.#.###.#.#
        #.........#
        #.###.###.#
        #.........#
        ###########
    """,
}
MOVES = np.array([[-1, 0], [0, 1], [0, -1], [1, 0]])  # rows and columns of up, right, left, down; 3 - i turns back
WAYS = np.arange(4)[None]  # rows of MOVES, of every ghost


class MiniPacmanOptions(NamedTuple):
    """See the module's text."""

    maze: str = "15x19"
    episode_steps: int = 1000
    observe: str = "image"


class Game(NamedTuple):
    """One game, or many with a leading axis. Cells are numbered row by row; cell 0 is a wall, and stands for none."""

    food: Array  # bool [cells]
    pills: Array  # int32 [2], their cells, 0 once eaten
    pacman: Array  # int32 [], its cell
    ghosts: Array  # int32 [GHOSTS], their cells, 0 where there is none
    heading: Array  # int32 [GHOSTS], the rows of MOVES that led them there
    power: Array  # int32 [], steps left
    level: Array  # int32 [], from 1
    level_steps: Array  # int32 [], made in this level
    steps: Array  # int32 [], made in this episode
    is_last: Array  # bool []


class Chance(NamedTuple):
    """The uniforms in [0, 1) of one step of one game: all its randomness."""

    pacman: Array  # [], this and the next three set a level up
    pills: Array  # [2]
    ghosts: Array  # [GHOSTS]
    heading: Array  # [GHOSTS]
    moves: Array  # [GHOSTS]
    wanders: Array  # [GHOSTS], below WANDER the ghost takes the way that wanders / WANDER says


UNIFORMS = 3 + 4 * GHOSTS


def chance_of(uniforms: Array) -> Chance:
    """A Chance of uniforms [UNIFORMS]."""
    ghosts = uniforms[3:].reshape(4, GHOSTS)
    return Chance(uniforms[0], uniforms[1:3], *(ghosts[i] for i in range(4)))


class Maze(NamedTuple):
    """What is known of a maze, by cell; numpy arrays."""

    columns: int
    walls: np.ndarray  # bool [cells]
    ways: np.ndarray  # int32 [cells], bit i where MOVES[i] leads from here to no wall
    free: np.ndarray  # int32 [free cells], the cells that are no walls
    far: np.ndarray  # int32 [free cells, free cells], those where ghosts may begin, by number of Pac-Man's in `free`
    far_count: np.ndarray  # int32 [free cells], how many of a row of `far` count


def read_maze(text: str) -> Maze:
    """The Maze of lines of # and others."""
    walls = np.array([[letter == "#" for letter in line.strip()] for line in text.split()])
    rows, columns = np.nonzero(~walls)
    free = rows * walls.shape[1] + columns
    ways = np.zeros(walls.size, np.int32)
    for bit, (down, right) in enumerate(MOVES):
        ways[free] |= ~walls[rows + down, columns + right] << bit
    apart = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
    far = np.zeros((len(free), len(free)), np.int32)
    far_count = (apart > NEAR).sum(-1).astype(np.int32)
    for number, count in enumerate(far_count):
        far[number, :count] = free[apart[number] > NEAR]
    return Maze(walls.shape[1], walls.ravel(), ways, free.astype(np.int32), far, far_count)


def begin(maze: Maze, chance: Chance, level: Array, steps: Array) -> Game:
    """A Game at the begin of a level int32 [], after so many steps int32 [] of its episode."""
    number = pick(chance.pacman, len(maze.free))
    first, second = pick(chance.pills[0], len(maze.free)), pick(chance.pills[1], len(maze.free) - 1)
    second = second + (second >= first)  # two cells
    cells = jnp.asarray(maze.far)[number][pick(chance.ghosts, jnp.asarray(maze.far_count)[number])]
    there = jnp.arange(GHOSTS) < 1 + (level - 1) // 2
    ghosts = jnp.where(there, cells, 0)
    return Game(
        food=jnp.asarray(~maze.walls),
        pills=jnp.asarray(maze.free)[jnp.stack([first, second])],
        pacman=jnp.asarray(maze.free)[number],
        ghosts=ghosts,
        heading=jnp.where(there, 3 - pick_way(ways_from(maze, ghosts), chance.heading), 0),
        power=jnp.int32(0),
        level=level,
        level_steps=jnp.int32(0),
        steps=steps,
        is_last=jnp.bool_(False),
    )


def pick(uniform: Array, count: Any) -> Array:
    """A number below `count`, int32 of the shape of `uniform`."""
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)


def ways_from(maze: Maze, cells: Array) -> Array:
    """Which MOVES lead from cells [GHOSTS] to no wall, bool [GHOSTS, 4]."""
    return (jnp.asarray(maze.ways)[cells][:, None] >> WAYS) & 1 == 1


def pick_way(ways: Array, uniform: Array) -> Array:
    """A row of MOVES among those that bool [GHOSTS, 4] allows, by chance [GHOSTS]; int32 [GHOSTS]."""
    before = jnp.cumsum(ways, axis=-1)
    chosen = ways & (before == pick(uniform, before[:, -1])[:, None] + 1)
    return (chosen * WAYS).sum(-1)


def move_ghosts(maze: Maze, game: Game, chance: Chance) -> tuple[Array, Array]:
    """Cells and headings int32 [GHOSTS] of ghosts after one step, of those too that have no right to move."""
    ways = ways_from(maze, game.ghosts) & (WAYS != 3 - game.heading[:, None])
    down = game.pacman // maze.columns - game.ghosts // maze.columns
    right = game.pacman % maze.columns - game.ghosts % maze.columns
    towards = jnp.stack([-down, right, -right, down], axis=-1)  # inner products with MOVES, [GHOSTS, 4]
    towards = jnp.where(game.power > 0, -towards, towards)
    order = jnp.where(ways, towards * 4 + 3 - WAYS, -1000)  # of equal ones the first
    best = 3 - order.max(-1) % 4
    heading = jnp.where(chance.wanders < WANDER, pick_way(ways, chance.wanders / WANDER), best)
    offsets = MOVES @ [maze.columns, 1]
    return game.ghosts + ((WAYS == heading[:, None]) * offsets[None]).sum(-1), heading


def play(maze: Maze, mode: str, game: Game, action: Array, chance: Chance) -> tuple[Game, Array, Array]:
    """One step of one game in its level: (Game, reward float32 [], whether Pac-Man died bool []); action: int32 []."""
    rewards = REWARDS[mode]
    power = jnp.maximum(game.power - 1, 0)
    offsets = np.concatenate([[0], MOVES @ [maze.columns, 1]]).astype(np.int32)
    target = game.pacman + ((jnp.arange(5) == action) * offsets).sum()
    pacman = jnp.where(jnp.asarray(maze.walls)[target], game.pacman, target)
    here = jnp.arange(len(maze.walls)) == pacman
    ate_food = (game.food & here).any()
    ate_pill = (game.pills == pacman).any()
    power = jnp.where(ate_pill, POWER, power)
    game = game._replace(
        food=game.food & ~here, pills=jnp.where(game.pills == pacman, 0, game.pills), pacman=pacman, power=power
    )

    speed = (SPEED + FASTER * (game.level - 1)) * jnp.where(power > 0, 0.5, 1)
    moves = (game.ghosts > 0) & (game.ghosts != pacman) & (chance.moves < speed)
    cells, heading = move_ghosts(maze, game, chance)
    ghosts, heading = jnp.where(moves, cells, game.ghosts), jnp.where(moves, heading, game.heading)
    touching = ghosts == pacman
    ate_ghost = touching.any() & (power > 0)
    died = touching.any() & (power == 0)
    eaten = touching & (jnp.cumsum(touching) == 1) & ate_ghost
    game = game._replace(
        ghosts=jnp.where(eaten, 0, ghosts),
        heading=heading,
        level_steps=game.level_steps + 1,
        steps=game.steps + 1,
    )
    happened = jnp.stack([jnp.bool_(True), ate_food, ate_pill, ate_ghost, died])
    return game, (happened * jnp.array(rewards, jnp.float32)).sum(), died


def level_ends(mode: str, game: Game) -> Array:
    """Whether the level is over, bool []."""
    gone = dict(food=~game.food.any(), pills=(game.pills == 0).all(), ghosts=(game.ghosts == 0).all())
    gone["food or steps"] = gone["food"] | (game.level_steps >= LEVEL_STEPS)
    return gone[LEVEL_ENDS[mode]]


def advance(maze: Maze, mode: str, episode_steps: int, game: Game, action: Array, uniforms: Array) -> tuple[Game, Step]:
    """The next arrival of one row, a Step without obs.

    Args:
        game: of one row; action: int32 []; uniforms: float32 [UNIFORMS].
    """
    chance, is_first = chance_of(uniforms), game.is_last
    played, reward, died = play(maze, mode, game, action, chance)
    anew = is_first | (level_ends(mode, played) & ~died)
    level, steps = jnp.where(is_first, 1, game.level + 1), jnp.where(is_first, 0, played.steps)
    fresh = begin(maze, chance, level, steps)
    after = jax.tree.map(lambda x, y: jnp.where(anew, x, y), fresh, played)
    after = after._replace(is_last=~is_first & (died | (steps >= episode_steps)))
    return after, Step(
        prev_action=jnp.where(is_first, 0, action),
        obs=None,
        reward=jnp.where(is_first, 0, reward),
        discount=jnp.where(is_first | ~died, 1.0, 0.0),
        is_first=is_first,
        is_last=after.is_last,
    )


def draw(maze: Maze, game: Game) -> Array:
    """Image uint8 [rows, columns, 3] of one game. A colour is one uint32 until the end: several times as fast."""
    cells = jnp.arange(len(maze.walls))
    ghosts = functools.reduce(jnp.logical_or, [cells == game.ghosts[i] for i in range(GHOSTS)])
    pills = (cells == game.pills[0]) | (cells == game.pills[1])
    yellow = packed(tuple(x + y * game.power // POWER for x, y in zip(GHOST, YELLOW, strict=True)))
    layers = [(game.food, packed(FOOD)), (pills, packed(PILL)), (cells == game.pacman, packed(PACMAN))]
    image = jnp.zeros(len(maze.walls), jnp.uint32)
    for where, colour in [*layers, (ghosts, yellow), (maze.walls, packed(WALL))]:
        image = jnp.where(where, colour, image)
    return jax.lax.bitcast_convert_type(image, jnp.uint8)[:, :3].reshape(-1, maze.columns, 3)


def packed(colour: tuple[Any, Any, Any]) -> Array:
    """A colour of three numbers to 255 as one uint32, red in its lowest byte."""
    return sum(jnp.asarray(number, jnp.uint32) << 8 * channel for channel, number in enumerate(colour))


def make_env(mode: str, options: dict[str, Any]) -> JaxEnv:
    """Makes a JaxEnv. Raises UsageError: unknown mode or option, or a value out of range."""
    check_name("minipacman mode", mode, REWARDS)
    options = check_options("minipacman", options, MiniPacmanOptions)
    check_name("maze", options.maze, MAZES)
    check_int("episode_steps", options.episode_steps, low=1, high=1_000_000)
    check_name("observe", options.observe, ("image", "image+state"))
    return _made(mode, options)


def make(mode: str, seeds: list[int], options: dict[str, Any]) -> JaxVecEnv:
    """Makes a JaxVecEnv of `make_env`; raises what that raises."""
    return JaxVecEnv(make_env(mode, options), seeds, ("minipacman", mode, options))


@functools.lru_cache(maxsize=16)  # what is compiled for one serves all that are made alike
def _made(mode: str, options: MiniPacmanOptions) -> JaxEnv:
    maze = read_maze(MAZES[options.maze])

    def see(game: Game) -> Any:
        image = jax.vmap(lambda game: draw(maze, game))(game)
        return image if options.observe == "image" else dict(image=image, state=game)

    def reset(key: Array, rows: int) -> tuple[Game, Step]:
        def one(uniforms: Array) -> Game:
            return begin(maze, chance_of(uniforms), jnp.int32(1), jnp.int32(0))

        game = jax.vmap(one)(jax.random.uniform(key, (rows, UNIFORMS)))
        zeros, never = jnp.zeros(rows), jnp.zeros(rows, bool)
        return game, Step(jnp.zeros(rows, jnp.int32), see(game), zeros, zeros + 1, ~never, never)

    def step(key: Array, game: Game, action: Array) -> tuple[Game, Step]:
        chex.assert_rank(action, 1)
        chex.assert_type(action, int)
        uniforms = jax.random.uniform(key, (len(action), UNIFORMS))
        game, step = jax.vmap(functools.partial(advance, maze, mode, options.episode_steps))(game, action, uniforms)
        return game, dataclasses.replace(step, obs=see(game))

    obs = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], reset(jax.random.key(0), 1)[1].obs))
    return JaxEnv(EnvSpec(obs, ActionSpec(len(MOVES) + 1, True, 0, len(MOVES)), 1, options.episode_steps), reset, step)
