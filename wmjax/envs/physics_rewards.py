"""Rewards of seven tasks of the DeepMind Control Suite in closed form, for any number of states at once.

dm_control computes a task's reward from one simulator; these are the same functions of its state's numbers, so that
all candidates of a planner are scored in one call. Equal to `task.get_reward` to 1e-12 (tests/envs/test_physics.py).
"""

from typing import NamedTuple

import numpy as np
from dm_control.utils.rewards import tolerance

ARM = 0.12  # of reacher, both links, in metres
REACHED = 0.05 + 0.01  # radii of reacher_easy's target and of its finger
CUP, BALL = np.array([0.0, 0.55]), np.array([0.0, 0.2])  # where target and ball are at zero joints, (x, z)
CUP_ROOM = 0.05 - 0.025  # half of ball_in_cup's target without the ball's radius
RUN_SPEED, WALK_SPEED = 10.0, 1.0  # metres a second
SPIN_SPEED = 15.0  # radians a second
STAND_HEIGHT, TORSO_HEIGHT = 1.2, 1.3  # what walker should reach, and where its torso is at zero joints


class Situation(NamedTuple):
    """What a reward looks at, float64 with any leading axes."""

    qpos: np.ndarray  # [..., joints], positions
    qvel: np.ndarray  # [..., joints], velocities
    control: np.ndarray  # [..., A]
    sensors: np.ndarray  # [..., sensors], of this very state
    goal: np.ndarray  # [..., G], what an episode draws beside the state: reacher's target (x, y)


def cartpole(at: Situation) -> np.ndarray:
    """Pole up, cart in the middle, no force, no turning: both cartpole_balance and cartpole_swingup."""
    upright = (1 + np.cos(at.qpos[..., 1])) / 2
    centred = (1 + tolerance(at.qpos[..., 0], margin=2)) / 2
    gentle = (4 + tolerance(at.control[..., 0], margin=1, value_at_margin=0, sigmoid="quadratic")) / 5
    still = (1 + tolerance(at.qvel[..., 1], margin=5)) / 2
    return upright * centred * gentle * still


def reacher(at: Situation) -> np.ndarray:
    """1 where the finger touches the target."""
    first, both = at.qpos[..., 0], at.qpos[..., 0] + at.qpos[..., 1]
    x = ARM * (np.cos(first) + np.cos(both))
    y = ARM * (np.sin(first) + np.sin(both))
    distance = np.hypot(at.goal[..., 0] - x, at.goal[..., 1] - y)
    return (distance <= REACHED).astype(np.float64)


def cheetah(at: Situation) -> np.ndarray:
    """Speed of the centre of mass over 10 m/s, at most 1."""
    bounds = (RUN_SPEED, np.inf)
    return tolerance(at.sensors[..., 0], bounds, margin=RUN_SPEED, value_at_margin=0, sigmoid="linear")


def finger(at: Situation) -> np.ndarray:
    """1 where the spinner turns fast enough."""
    return (at.qvel[..., 2] <= -SPIN_SPEED).astype(np.float64)


def ball_in_cup(at: Situation) -> np.ndarray:
    """1 where the ball is in the cup."""
    away = np.abs(CUP + at.qpos[..., :2] - BALL - at.qpos[..., 2:])
    return np.all(away < CUP_ROOM, axis=-1).astype(np.float64)


def walker(at: Situation) -> np.ndarray:
    """Torso high and upright, and moving at 1 m/s."""
    height, upright = TORSO_HEIGHT + at.qpos[..., 0], (1 + np.cos(at.qpos[..., 2])) / 2
    stand = (3 * tolerance(height, (STAND_HEIGHT, np.inf), margin=STAND_HEIGHT / 2) + upright) / 4
    bounds = (WALK_SPEED, np.inf)
    move = tolerance(at.sensors[..., 0], bounds, margin=WALK_SPEED / 2, value_at_margin=0.5, sigmoid="linear")
    return stand * (5 * move + 1) / 6


REWARDS = {
    "cartpole_balance": cartpole,
    "cartpole_swingup": cartpole,
    "reacher_easy": reacher,
    "cheetah_run": cheetah,
    "finger_spin": finger,
    "ball_in_cup_catch": ball_in_cup,
    "walker_walk": walker,
}
