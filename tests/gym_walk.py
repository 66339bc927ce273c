"""A small environment written after gymnasium's interface, and the spaces that it has."""

import os
import pickle
import time

import numpy as np


class Space:
    """The spaces below have the names and the attributes of gymnasium's."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __repr__(self):
        return f"{type(self).__name__}(...)"


class Box(Space):
    def __init__(self, low, high, dtype=np.float32):
        low, high = np.asarray(low, dtype), np.asarray(high, dtype)
        super().__init__(low=low, high=high, shape=low.shape, dtype=low.dtype)

    def __repr__(self):
        return f"Box({self.low}, {self.high}, {self.shape}, {self.dtype})"


class Discrete(Space):
    pass


class GymWalk:
    """Gymnasium's way: a noisy walk with actions in [0, 10]; truncates after 4 steps, terminates above 12."""

    def __init__(self, seed):
        self.action_space = Box([0, -1], [10, 3])
        self.actions = []

    def reset(self, *, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.place, self.elapsed = self.rng.uniform(0, 5), 0
        return self.image(), {}

    def step(self, action):
        self.actions.append(action)
        self.place, self.elapsed = self.place + action[0] * self.rng.uniform(0, 0.5), self.elapsed + 1
        return self.image(), self.place, self.place > 12, self.elapsed >= 4, {}

    def image(self):
        return np.full((4, 5, 3), self.place * 5, np.uint8)


class GridWalk:
    """A square on a grid of 4 x 4 that four of six integers move to the corner, for 1; at most 12 steps."""

    MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0), (0, 0), (0, 0))
    action_space = Discrete(n=6)

    def __init__(self, seed):
        pass

    def reset(self, *, seed=None):
        self.place, self.elapsed = np.random.default_rng(seed).integers(0, 3, 2), 0
        return self.image(), {}

    def step(self, action):
        self.place, self.elapsed = np.clip(self.place + self.MOVES[action], 0, 3), self.elapsed + 1
        there = bool((self.place == 3).all())
        return self.image(), float(there), there, self.elapsed >= 12, {}

    def image(self):
        image = np.zeros((8, 8, 3), np.uint8)
        row, column = 2 * self.place
        image[row : row + 2, column : column + 2] = (255, 128, 0)
        return image


class VectorWalk(GymWalk):
    """Its observation is a dict of the image, the place, the steps and a one."""

    def image(self):
        return {"pixels": super().image(), "place": self.place / 10, "drawn": np.array([self.elapsed, 1], np.int64)}


class NoisyVector(VectorWalk):
    """Its images are a function of the seed, its numbers are not."""

    noise = np.random.default_rng(0)

    def image(self):
        return super().image() | {"place": self.noise.normal()}


class StateWalk(GymWalk):
    """No function of its seed, but its state can be had and set."""

    chance = np.random.default_rng(0)

    def reset(self, *, seed=None):
        return super().reset(seed=int(self.chance.integers(1 << 30)))

    def get_state(self):
        return pickle.dumps((self.place, self.elapsed, self.rng))

    def set_state(self, state):
        self.place, self.elapsed, self.rng = pickle.loads(state)


class FragileWalk(GymWalk):
    """Raises at the largest first action, ends its process at the least one; its next reset raises after one of 9.75.

    It hangs at the largest second action, and at the least one the reward is a NaN.
    """

    tired = False

    def reset(self, *, seed=None):
        if self.tired:
            raise RuntimeError("the simulator does not begin")
        return super().reset(seed=seed)

    def step(self, action):
        self.tired = 9.6 < action[0] < 9.9
        if action[0] > 9.9:
            raise RuntimeError("the simulator crashed")
        if action[0] < 0.1:
            os._exit(7)
        if action[1] > 2.9:
            time.sleep(600)
        image, reward, *rest = super().step(action)
        return image, np.nan if action[1] < -0.9 else reward, *rest
