"""physics environments against dm_control itself: states, rewards, episodes, snapshots, refusals."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.steps import FIELDS
from wmjax import envs
from wmjax.envs import physics_rewards
from wmjax.types import UsageError

TASKS = list(physics_rewards.REWARDS)
DECISIONS = 60


def numbers(states):
    """uint8 [..., S, 8] -> float64 [..., S]."""
    return np.ascontiguousarray(states).view(np.float64)[..., 0]


def full_physics(env, states):
    """Time, positions and velocities of states: what is left without warm start and goal."""
    return numbers(states)[..., : env._simulator._full]


def random_actions(env, length, seed=0):
    """float32 [length, E, A] that reach a little over the bounds."""
    shape = (length, env._num_envs, env.spec.action.size)
    return np.random.default_rng(seed).uniform(-1.2, 1.2, shape).astype(np.float32)


def play_dm_control(env, actions, repeat, row):
    """(states [T, .], rewards [T]) of dm_control's own environment from the pool's first episode on."""
    import mujoco

    simulator = type(env._simulator)(env._task_name, 1)
    rng = np.random.SeedSequence((env._seeds[row], 1))
    simulator.reset(int(rng.generate_state(1)[0]))
    reference = simulator._environment
    states, rewards = [], []
    for action in actions[:, row]:
        rewards.append(sum(reference.step(np.clip(action, -1, 1)).reward for _ in range(repeat)))
        state = np.empty(simulator._full)
        mujoco.mj_getState(
            reference.physics.model.ptr, reference.physics.data.ptr, state, mujoco.mjtState.mjSTATE_FULLPHYSICS
        )
        states.append(state)
    return np.stack(states), np.array(rewards)


@pytest.mark.parametrize("repeat", [1, 4])
@pytest.mark.parametrize("task", TASKS)
def test_equals_dm_control(task, repeat):
    """Both `step` and `advance`: states bit for bit, rewards to 1e-12."""
    env = envs.make(f"physics:{task}", 2, 3, action_repeat=repeat, threads=2)
    actions = random_actions(env, DECISIONS)
    first = env.reset()
    states, rewards = env.advance(first.obs, actions)
    steps = [env.step(action) for action in actions]
    for row in range(2):
        true_states, true_rewards = play_dm_control(env, actions, repeat, row)
        np.testing.assert_array_equal(full_physics(env, states)[:, row], true_states)
        np.testing.assert_allclose(rewards[:, row], true_rewards, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(full_physics(env, np.stack([x.obs for x in steps]))[:, row], true_states)
        np.testing.assert_array_equal([x.reward[row] for x in steps], np.float32(true_rewards))
    assert not any(x.is_first.any() or x.is_last.any() for x in steps)


def rewarded(task, states, rng, at):
    """Puts half of the states [N, S] where the reward is likely; at: slices of their numbers by name."""
    half = len(states) // 2
    qpos, qvel = states[:half, at["qpos"]], states[:half, at["qvel"]]
    if task == "reacher_easy":
        reach = physics_rewards.ARM * np.stack(
            [np.cos(qpos[:, 0]) + np.cos(qpos.sum(1)), np.sin(qpos[:, 0]) + np.sin(qpos.sum(1))], axis=1
        )
        states[:half, at["goal"]] = reach + rng.normal(0, 0.03, (half, 2))
    if task == "ball_in_cup_catch":
        in_cup = physics_rewards.CUP + qpos[:, :2] - physics_rewards.BALL
        states[:half, at["qpos"]] = np.concatenate([qpos[:, :2], in_cup + rng.uniform(-0.03, 0.03, (half, 2))], axis=1)
    if task == "finger_spin":
        states[:half, at["qvel"]] = qvel * [1, 1, 0] + [0, 0, -15] + rng.normal(0, 3, (half, 1)) * [0, 0, 1]
    return states


@pytest.mark.parametrize("task", TASKS)
def test_rewards_are_those_of_the_task(task):
    """Closed forms equal dm_control's on 300 states, a tenth of them rewarded at least."""
    env = envs.make(f"physics:{task}", 1, 0, action_repeat=1, threads=1)
    simulator, rng = env._simulator, np.random.default_rng(1)
    model = simulator._model
    at = dict(qpos=slice(1, 1 + model.nq), qvel=slice(1 + model.nq, 1 + model.nq + model.nv))
    at["goal"] = slice(simulator.size - 2, simulator.size)
    states = numbers(env.reset().obs).repeat(300, axis=0)
    states[:, at["qpos"]] += rng.normal(0, 0.5, (300, model.nq))
    states[:, at["qvel"]] = rng.normal(0, 3, (300, model.nv))
    states = rewarded(task, states, rng, at)
    controls = np.float32(rng.uniform(-1, 1, (300, model.nu)))
    sensors, expected = [], []
    for state, control in zip(states, controls, strict=True):
        simulator._write(state)
        simulator._task.before_step(control, simulator._physics)
        simulator._mujoco.mj_forward(model, simulator._data)
        sensors.append(simulator._data.sensordata.copy())
        expected.append(simulator._task.get_reward(simulator._physics))
    situation = physics_rewards.Situation(
        states[:, at["qpos"]], states[:, at["qvel"]], controls, np.stack(sensors), states[:, at["goal"]]
    )
    np.testing.assert_allclose(physics_rewards.REWARDS[task](situation), expected, rtol=0, atol=1e-12)
    assert np.mean(np.array(expected) > 0) >= 0.1


def test_an_episode_ends_by_time_and_the_next_one_differs():
    env = envs.make("physics:reacher_easy", 2, 1, action_repeat=4, episode_steps=10)
    steps = [env.reset()] + [env.step(np.ones((2, 2))) for _ in range(4)]
    assert env.spec.time_limit == 3 and [bool(x.is_last[0]) for x in steps] == [False, False, False, True, False]
    assert [bool(x.is_first[0]) for x in steps] == [True, False, False, False, True]
    np.testing.assert_allclose(numbers(steps[3].obs)[:, 0], 0.2)  # seconds: the last repeat was cut short
    goals = numbers(np.stack([steps[0].obs, steps[4].obs]))[..., -2:].reshape(4, 2)
    assert len({tuple(goal) for goal in goals}) == 4  # each row and each episode has a target of its own
    assert all((x.discount == 1).all() for x in steps) and (steps[4].reward == 0).all()
    assert (steps[4].prev_action == 0).all()


def test_a_snapshot_brings_back_the_same_bytes():
    env = envs.make("physics:cheetah_run", 2, 5, action_repeat=2, episode_steps=60)
    actions = random_actions(env, 50)
    env.reset()
    for action in actions[:20]:
        env.step(action)
    snapshot = env.snapshot()
    after = [env.step(action) for action in actions[20:]]  # over the end of an episode
    for other in (env, envs.make("physics:cheetah_run", 2, 5, action_repeat=2, episode_steps=60, threads=1)):
        other.restore(snapshot)
        for step, again in zip(after, [other.step(action) for action in actions[20:]], strict=True):
            for field in FIELDS:
                np.testing.assert_array_equal(getattr(step, field), getattr(again, field), err_msg=field)
    with pytest.raises(UsageError, match="snapshot is of another environment"):
        envs.make("physics:cheetah_run", 2, 6, action_repeat=2, episode_steps=60).restore(snapshot)


def test_advance_moves_nothing_and_plays_on():
    """It is pure, and from where it ended on a rollout differs by no more than the missing warm start makes."""
    env = envs.make("physics:walker_walk", 2, 2)
    first, actions = env.reset(), random_actions(env, 30)
    states, rewards = env.advance(first.obs, actions)
    begun, rest = env.advance(first.obs, actions[:10]), env.advance(states[9], actions[10:])
    np.testing.assert_array_equal(begun[0], states[:10])
    np.testing.assert_allclose(numbers(rest[0]), numbers(states[10:]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([begun[1], rest[1]]), rewards, atol=1e-6)
    again = env.advance(first.obs, actions)
    np.testing.assert_array_equal(again[0], states)
    assert (env.snapshot()["states"] == numbers(first.obs)).all()


DRAW = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from dm_control import suite
from wmjax import envs
from wmjax.envs import drawing_thread
env = envs.make("physics:reacher_easy", 2, 0, observe="image+state", size=32, episode_steps=8)
step = env.reset()
snapshot = env.snapshot()
moved = env.step(np.ones((2, 2)))
assert step.obs["image"].shape == (2, 32, 32, 3) and step.obs["image"].dtype == np.uint8
assert {name: x.shape for name, x in env.spec.obs.items()} == {"image": (32, 32, 3), "state": (9, 8)}
assert env.spec.obs_shape == (32, 32, 3)
assert (step.obs["image"][0] != step.obs["image"][1]).any() and (step.obs["image"] != moved.obs["image"]).any()
again = env.restore(snapshot)
assert (again.obs["image"] == step.obs["image"]).all() and (again.obs["state"] == step.obs["state"]).all()
reference = suite.load("reacher", "easy")
physics = reference.physics
state = step.obs["state"].view(np.float64)[1, :, 0]
with physics.reset_context():
    physics.data.qpos[:], physics.named.model.geom_pos["target", :2] = state[1:3], state[-2:]
    physics.named.model.geom_size["target", 0] = 0.05
assert (drawing_thread.call(physics.render, 32, 32, camera_id=0) == step.obs["image"][1]).all()
drawing_thread.call(physics.free)
other = envs.make("physics:reacher_easy", 2, 0, observe="image+state", size=32, episode_steps=8, shadow_size=64)
apart = np.abs(other.reset().obs["image"].astype(int) - step.obs["image"])
assert 0 < apart.max() and apart.mean() < 3, apart.mean()
with ThreadPoolExecutor(1) as thread:  # environments that are joined step in threads
    assert thread.submit(env.reset).result().obs["image"].std() > 0
other.close()
del other, reference, physics
print("drawn")
"""


def test_images_are_those_of_dm_control():
    """In a process of its own: envpool's drawing and dm_control's do not go together."""
    done = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, env=os.environ)
    assert done.stdout.endswith("drawn\n") and not done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hopper_hop", {}, "unknown physics task 'hopper_hop'.*Allowed: ball_in_cup_catch, .*walker_walk"),
        ("cheetah_run", dict(observe="images"), "unknown observe 'images'"),
        ("cheetah_run", dict(action_repeat=0), "action_repeat=0"),
        ("cheetah_run", dict(episode_steps=1001), "episode_steps=1001"),
        ("cheetah_run", dict(threads=0), "threads=0"),
        ("cheetah_run", dict(shadow_size=63), "shadow_size=63"),
        ("cheetah_run", dict(supersample=2), "unknown physics option 'supersample'"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(UsageError, match=message):
        envs.make(f"physics:{name}", 1, 0, **options)


def test_packages_that_do_not_fit_are_refused_in_one_line(monkeypatch):
    from dm_control import suite

    def load(*args):
        raise AttributeError("module 'mujoco' has no attribute 'MjvCamera'")

    monkeypatch.setattr(suite, "load", load)
    with pytest.raises(UsageError, match="mujoco and dm_control do not work together here: module 'mujoco' has no"):
        envs.make("physics:cheetah_run", 1, 0)
