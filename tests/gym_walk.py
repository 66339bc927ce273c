"""A small environment written after gymnasium's interface, and the spaces that it has."""

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
