"""What dmc environments show beside the image: the suite's own low-dimensional observations, against dm_control."""

import jax
import numpy as np
import pytest

from tests.envs.dmc_by_hand import (
    STATE,
    cartpole_state,
    cheetah_state,
    finger_state,
    first_observation,
    plain_state,
    played,
    random_actions,
)
from tests.steps import assert_equal
from wmjax import envs
from wmjax.envs import dmc
from wmjax.envs.check import identity_of
from wmjax.envs.concatenated import JoinedVecEnv
from wmjax.envs.seeds import row_seeds
from wmjax.types import UsageError


def walker_state(obs, row):
    torso, *right, left_thigh, left_leg, left_foot = np.arctan2(obs.orientations[row, 1::2], obs.orientations[row, ::2])
    joints = -np.diff([torso, *right, torso, left_thigh, left_leg, left_foot])[[0, 1, 2, 4, 5, 6]]
    joints = (joints + np.pi) % (2 * np.pi) - np.pi
    return [obs.height[row] - 1.3, 0, torso, *joints], obs.velocity[row]  # the model stands 1.3 high


STATES = {
    "cartpole_swingup": cartpole_state,
    "ball_in_cup_catch": plain_state,
    "finger_spin": finger_state,
    "cheetah_run": cheetah_state,
    "hopper_hop": cheetah_state,
    "reacher_easy": plain_state,
    "walker_walk": walker_state,
}


@pytest.mark.parametrize("name", STATES)
def test_states_equal_dm_control(name):
    """From one physical state, the same actions give dm_control's own low-dimensional observations.

    In float64 they differ by up to 2e-12 after 8 decisions (walker's velocities, which reach 41): what is allowed here
    is the rounding to float32. States of one control step before are off by 3e-3 and more. All steps are kept before
    any is compared: none may share memory with the next.
    """
    from dm_control import suite

    seed, num_envs = 7, 2
    env = envs.make(f"dmc:{name}", num_envs, seed, size=16, **STATE)
    obs = first_observation(dmc.task_ids()[name], seed, num_envs)
    actions, steps = played(env)
    domain, _, task = name.rpartition("_")
    for row in range(num_envs):
        reference = suite.load(domain, task)
        reference.reset()
        physics = reference.physics
        with physics.reset_context():
            physics.data.qpos[:], physics.data.qvel[:] = STATES[name](obs, row)
        if name == "reacher_easy":
            finger = physics.named.data.geom_xpos["finger", :2]
            physics.named.model.geom_pos["target", :2] = finger + obs.to_target[row]
            physics.forward()
        for index, step in enumerate(steps):
            if index:
                for _ in range(env.options.action_repeat):
                    reference.step(np.clip(actions[index - 1, row], -1, 1))
            expected = reference.task.get_observation(physics)
            assert step.obs.keys() == {"image", *expected}
            for key, value in expected.items():
                assert step.obs[key].dtype == np.float32 and env.spec.obs[key].shape == step.obs[key].shape[1:]
                np.testing.assert_allclose(step.obs[key][row], np.ravel(value), rtol=2e-7, atol=2e-7, err_msg=key)


def test_states_change_nothing_else():
    """The same steps with and without them; snapshots of images alone are as before there was a choice."""
    plain, both = (envs.make("dmc:finger_spin", 2, 5, size=16, episode_steps=6, **o) for o in ({}, STATE))
    steps = [(plain.reset(), both.reset())]
    steps += [(plain.step(action), both.step(action)) for action in random_actions(plain, 6)]
    for step, other in steps:
        assert_equal(step, other.replace(obs=other.obs["image"]))
    assert steps[4][0].is_first.all()
    settings = (2, 16, 0, 6, None, None)
    assert plain.snapshot()["identity"] == identity_of("FingerSpin-v1", row_seeds(5, 2), settings)
    with pytest.raises(UsageError, match="another environment"):
        both.restore(plain.snapshot())


LISTED = ("finger_spin", "fish_upright", "humanoid_run", "humanoid_run_pure_state", "quadruped_escape")
LISTED += ("quadruped_fetch", "quadruped_walk", "stacker_stack_2", "walker_walk")


@pytest.mark.parametrize("listed", [LISTED, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def test_states_have_dm_controls_names(listed):
    """And lengths: envpool lists observations of other tasks of a domain as well."""
    from dm_control import suite

    for domain, task in suite.ALL_TASKS:
        if listed is None or f"{domain}_{task}" in listed:
            spec = suite.load(domain, task).observation_spec()
            sizes = {name: int(np.prod(entry.shape)) for name, entry in spec.items()}
            assert dmc.state_sizes(f"{domain}_{task}") == sizes


def test_states_of_rows_that_arrive_in_any_order():
    """A part of a pool may be returned in any order: an observation belongs to its env_id."""
    env, turned = (envs.make("dmc:cheetah_run", 3, 0, size=16, **STATE) for _ in range(2))
    turned._pool = Turned(turned._pool)
    assert_equal(turned.reset(), env.reset())
    for action in random_actions(env, 3):
        assert_equal(turned.step(action), env.step(action))


class Turned:
    """A pool whose rows arrive the other way round."""

    def __init__(self, pool):
        self.pool, self.render = pool, pool.render

    def reset(self, rows):
        return jax.tree.map(lambda x: x[::-1], self.pool.reset(rows))

    def step(self, control, rows):
        return jax.tree.map(lambda x: x[::-1], self.pool.step(control, rows))


def test_states_of_joined_environments():
    alone, joined = ([envs.make("dmc:reacher_easy", 2, seed, size=16, **STATE) for seed in (0, 1)] for _ in range(2))
    joined = JoinedVecEnv(joined)
    steps, first = [env.reset() for env in alone], joined.reset()
    np.testing.assert_array_equal(first.obs["to_target"], np.concatenate([step.obs["to_target"] for step in steps]))
    action = np.ones((4, 2), np.float32)
    step = joined.step(action)
    steps = [env.step(action[:2]) for env in alone]
    np.testing.assert_array_equal(step.obs["position"], np.concatenate([each.obs["position"] for each in steps]))
    assert joined.spec.obs.keys() == {"image", "position", "to_target", "velocity"}
