"""MiniPacman in plain Python, one row at a time, from the rules: what `wmjax.envs.minipacman` is compared with.

It shares with it the mazes, the order of a step's uniforms and of directions, and nothing else.
"""

import collections

import numpy as np

GHOSTS, POWER = 8, 20
UP, RIGHT, LEFT, DOWN = (-1, 0), (0, 1), (0, -1), (1, 0)
DIRECTIONS = (UP, RIGHT, LEFT, DOWN)
BACK = {UP: DOWN, DOWN: UP, LEFT: RIGHT, RIGHT: LEFT}
PAYS = {  # step, food, pill, ghost, death
    "regular": (0, 1, 2, 5, 0),
    "avoid": (0.1, -0.1, -5, -10, -20),
    "hunt": (0, 0, 1, 10, -20),
    "ambush": (0, -0.1, 0, 10, -20),
    "rush": (0, -0.1, 10, 0, 0),
}


def pick(uniform, count):
    return min(int(np.float32(uniform) * np.float32(count)), count - 1)


class Row:
    """One game. Places are (row, column); ghosts are [place, direction that led there] or None."""

    def __init__(self, text, mode, episode_steps):
        self.maze = np.array([list(line.strip()) for line in text.split()]) == "#"
        self.free = [tuple(map(int, place)) for place in np.argwhere(~self.maze)]
        self.mode, self.episode_steps, self.seen = mode, episode_steps, collections.Counter()

    def begin_episode(self, uniforms):
        self.steps, self.over = 0, False
        self.begin_level(1, uniforms)

    def begin_level(self, level, uniforms):
        self.level, self.level_steps, self.power = level, 0, 0
        self.food = ~self.maze
        self.pacman = self.free[pick(uniforms[0], len(self.free))]
        left = list(self.free)
        first = left.pop(pick(uniforms[1], len(left)))
        self.pills = [first, left.pop(pick(uniforms[2], len(left)))]
        row, column = self.pacman
        far = [place for place in self.free if abs(place[0] - row) > 2 or abs(place[1] - column) > 2]
        self.ghosts = [None] * GHOSTS
        for ghost in range(min(1 + (level - 1) // 2, GHOSTS)):
            place = far[pick(uniforms[3 + ghost], len(far))]
            ways = self.ways(place)
            self.ghosts[ghost] = [place, BACK[ways[pick(uniforms[3 + GHOSTS + ghost], len(ways))]]]

    def ways(self, place):
        return [way for way in DIRECTIONS if not self.maze[place[0] + way[0], place[1] + way[1]]]

    def step(self, action, uniforms):
        """(reward, discount, is_first, is_last) of the next arrival."""
        if self.over:
            self.begin_episode(uniforms)
            self.seen["episode"] += 1
            return 0.0, 1.0, True, False
        per_step, per_food, per_pill, per_ghost, per_death = PAYS[self.mode]
        reward, self.steps, self.level_steps = per_step, self.steps + 1, self.level_steps + 1
        self.power = max(self.power - 1, 0)
        if action > 0 and DIRECTIONS[action - 1] in self.ways(self.pacman):
            way = DIRECTIONS[action - 1]
            self.pacman = (self.pacman[0] + way[0], self.pacman[1] + way[1])
        if self.food[self.pacman]:
            self.food[self.pacman] = False
            reward += per_food
        if self.pacman in self.pills:
            self.pills.remove(self.pacman)
            reward += per_pill
            self.power = POWER
            self.seen["pill"] += 1
        dead, ate = self.step_ghosts(uniforms[3 + 2 * GHOSTS :])
        reward += per_ghost * ate + per_death * dead
        if not dead and self.level_over():
            self.seen["level"] += 1
            self.begin_level(self.level + 1, uniforms)
        self.over = dead or self.steps == self.episode_steps
        self.seen["time limit"] += self.over and not dead
        self.seen["dead"] += dead
        return reward, 0.0 if dead else 1.0, False, self.over

    def step_ghosts(self, uniforms):
        """(whether Pac-Man died, whether it ate one)."""
        dead, ate = False, False
        speed = (0.5 + 0.1 * (self.level - 1)) / (2 if self.power else 1)
        for number, ghost in enumerate(self.ghosts):
            if ghost is None:
                continue
            if ghost[0] != self.pacman and uniforms[number] < speed:
                way = self.turn(ghost, uniforms[GHOSTS + number])
                ghost[:] = (ghost[0][0] + way[0], ghost[0][1] + way[1]), way
            if ghost[0] == self.pacman and not self.power:
                dead = True
            elif ghost[0] == self.pacman and not ate:
                self.ghosts[number], ate = None, True
                self.seen["ghost eaten"] += 1
        return dead, ate

    def turn(self, ghost, uniform):
        place, came = ghost
        ways = [way for way in self.ways(place) if way != BACK[came]]
        if uniform < 0.05:
            self.seen["wandered"] += len(ways) > 1
            return ways[pick(np.float32(uniform) / np.float32(0.05), len(ways))]
        there = (self.pacman[0] - place[0], self.pacman[1] - place[1])
        products = [way[0] * there[0] + way[1] * there[1] for way in ways]
        self.seen["crossing with power"] += len(ways) > 1 and self.power > 0
        return ways[products.index(min(products) if self.power else max(products))]

    def level_over(self):
        if self.mode in ("hunt", "ambush"):
            return all(ghost is None for ghost in self.ghosts)
        if self.mode == "rush":
            return not self.pills
        return not self.food.any() or (self.mode == "avoid" and self.level_steps == 128)

    def image(self):
        image = np.zeros((*self.maze.shape, 3), np.uint8)
        image[self.food] = 0, 0, 255
        for pill in self.pills:
            image[pill] = 0, 255, 255
        image[self.pacman] = 0, 255, 0
        for ghost in self.ghosts:
            if ghost is not None:
                image[ghost[0]] = 255, 255 * self.power // 20, 0
        image[self.maze] = 255
        return image
