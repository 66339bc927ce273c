"""Presets where they depend on the task, and how far an optimiser moves weights."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.planet import config as planet
from experiments.planet.gradients import mean_steps
from experiments.smaller_world_models import config as smaller_world_models


@pytest.mark.parametrize(
    ("argument", "updates"),
    [
        ("cheetah_run,cpu", 100),  # 250 decisions an episode
        ("walker_walk,cpu", 200),  # 500
        ("finger_spin,cpu", 200),
        ("cartpole_swingup,cpu", 50),  # 125
        ("ball_in_cup_catch,cpu", 100),
        ("hopper_hop,cpu", 200),  # not a task of the paper's: action repeat 2
        ("cartpole_swingup+cartpole_balance,cpu", 50),
        ("fake:counter,cpu", 100),
        ("walker_walk,paper", 100),
        ("cartpole_swingup,paper", 100),
    ],
)
def test_updates_per_decision_are_those_of_cheetah_run(argument, updates):
    """In `cpu`; the paper's 100 are per episode, whatever its length."""
    assert planet.get_config(argument).train.updates_per_episode == updates


@pytest.mark.parametrize(
    ("argument", "pressed"), [("Breakout,paper", False), ("Breakout,cpu", None), ("fake:counter,paper", None)]
)
def test_the_paper_presses_no_fire(argument, pressed):
    """None: the family's own choice; an environment that is no game knows no such option."""
    assert smaller_world_models.get_config(argument).env.fire_reset is pressed


def test_steps_are_small_where_gradients_are_below_adams_epsilon():
    """Constant gradients g: a step is rate * g / (g + epsilon). Biases do not count."""
    rate, epsilon = 0.01, 1e-4
    gradients = dict(first=jnp.full((2, 3), -3e-4), second=jnp.full((3, 1), 1e-5), bias=jnp.ones(3))
    optimizer = optax.adam(rate, eps=epsilon)
    changes = optimizer.update(gradients, optimizer.init(gradients))[0]
    np.testing.assert_allclose(mean_steps(changes, rate), [3 / 4, 1 / 11], rtol=1e-4)
