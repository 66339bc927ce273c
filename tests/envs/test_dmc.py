"""dmc environments against dm_control itself, the life of an episode, action repeat, snapshots and refusals."""

import os
import subprocess
import sys

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
from tests.steps import FIELDS, assert_equal
from wmjax import envs
from wmjax.envs import cache, dmc, gl
from wmjax.types import NonFiniteError, UsageError


@pytest.mark.parametrize(
    ("name", "env_id", "state", "repeat", "rows_drawn_alike"),
    [
        ("cartpole_swingup", "CartpoleSwingup-v1", cartpole_state, 8, 64),
        # The floor is drawn differently by MuJoCo 3.6 (in envpool) and 3.17 (in dm_control): it begins at row 41.
        ("ball_in_cup_catch", "BallInCupCatch-v1", plain_state, 4, 40),
        ("finger_spin", "FingerSpin-v1", finger_state, 2, 0),
        ("cheetah_run", "CheetahRun-v1", cheetah_state, 4, 0),
    ],
)
def test_equals_dm_control(name, env_id, state, repeat, rows_drawn_alike):
    """From one physical state, the same actions give dm_control's reward sums and its frames from camera 0."""
    from dm_control import suite

    seed, num_envs = 7, 2
    env = envs.make(f"dmc:{name}", num_envs, seed)
    obs = first_observation(env_id, seed, num_envs)
    actions, steps = played(env)
    domain, _, task = name.rpartition("_")
    for row in range(num_envs):
        reference = suite.load(domain, task)
        reference.reset()
        with reference.physics.reset_context():
            reference.physics.data.qpos[:], reference.physics.data.qvel[:] = state(obs, row)
        for index, step in enumerate(steps):
            if index:
                control = np.clip(actions[index - 1, row], -1, 1)
                rewards = [reference.step(control).reward for _ in range(repeat)]
                np.testing.assert_allclose(step.reward[row], sum(rewards), rtol=1e-4, atol=1e-5)
            if rows_drawn_alike:
                frame = reference.physics.render(64, 64, camera_id=0)[:rows_drawn_alike].astype(float)
                assert np.abs(frame - step.obs[row, :rows_drawn_alike]).mean() < 0.5


def test_paper_action_repeats():
    """The seven tasks of the paper, and one that is not among them."""
    expected = {
        "cartpole_balance": 8,
        "cartpole_swingup": 8,
        "reacher_easy": 4,
        "cheetah_run": 4,
        "finger_spin": 2,
        "ball_in_cup_catch": 4,
        "walker_walk": 2,
        "pendulum_swingup": 2,
    }
    assert {task: envs.make(f"dmc:{task}", 1, 0).options.action_repeat for task in expected} == expected


def test_life_of_an_episode():
    """First and last rows, a time limit inside a repeat, and no reward carried over to the next episode."""
    env = envs.make("dmc:cartpole_balance", 2, 3, action_repeat=4, episode_steps=10, size=32)
    actions = random_actions(env, 8, seed=1)
    steps = [env.reset()] + [env.step(action) for action in actions]
    ones = np.ones(2, bool)
    for index, step in enumerate(steps):
        place = index % 4  # decisions of 4, 4 and 2 control steps, then the next episode's first row
        np.testing.assert_array_equal(step.is_first, ones & (place == 0))
        np.testing.assert_array_equal(step.is_last, ones & (place == 3))
        np.testing.assert_array_equal(step.discount, np.float32([1, 1]))
        expected = np.clip(actions[index - 1], -1, 1) if place else np.zeros((2, 1))
        np.testing.assert_array_equal(step.prev_action, expected)
        low, high = {0: (0, 0), 1: (3, 4), 2: (3, 4), 3: (1.5, 2)}[place]  # balancing pays almost 1 a control step
        assert np.all(step.reward >= low) and np.all(step.reward <= high), (index, step.reward)
        assert step.obs.shape == (2, 32, 32, 3) and step.obs.dtype == np.uint8
        assert [getattr(step, name).dtype for name in FIELDS] == [
            np.float32,
            np.uint8,
            np.float32,
            np.float32,
            bool,
            bool,
        ]
    assert np.any(steps[0].obs != steps[1].obs), "frames must not share memory"
    assert np.any(steps[0].obs != steps[4].obs), "each episode begins elsewhere"


def test_repeat_sums_rewards():
    """One decision of R = 6 equals six decisions of R = 1: sum of rewards, frame, state, also across a time limit."""
    options = dict(episode_steps=15, size=32) | STATE
    many, one = (envs.make("dmc:cheetah_run", 2, 5, action_repeat=r, **options) for r in (6, 1))
    many.reset(), one.reset()
    for action in random_actions(many, 3):
        step = many.step(action)
        rewards = []
        for _ in range(6):
            single = one.step(action)
            rewards.append(single.reward)
            if single.is_last.all():
                break
        np.testing.assert_allclose(step.reward, np.sum(rewards, axis=0), rtol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, step.obs, single.obs)
        np.testing.assert_array_equal(step.is_last, single.is_last)
    assert step.is_last.all() and len(rewards) == 3


def test_reward_sum_is_not_the_last_reward():
    """The trap of a longer control step: it would give one reward at most 1."""
    env = envs.make("dmc:cartpole_balance", 1, 0, size=16)
    env.reset()
    assert 7 < env.step(np.zeros((1, 1), np.float32)).reward[0] <= 8


def test_rows_that_end_apart():
    """lqr truly terminates (discount 0) when its masses rest: rows end apart, inside a repeat, and go on alone."""
    env = envs.make("dmc:lqr_lqr_2_1", 3, 0, action_repeat=5, size=16)
    assert env.spec.action.high == 1
    script = Script(env)
    step = env.reset()
    for _ in range(2):
        step = env.step(np.zeros((3, 1), np.float32))
    script.end_rows_at({1: 12, 2: 13})
    step = env.step(np.zeros((3, 1), np.float32))
    np.testing.assert_array_equal(step.is_last, [False, True, True])
    np.testing.assert_array_equal(step.discount, [1, 0, 0])
    np.testing.assert_array_equal(script.steps_taken, [15, 12, 13])
    step = env.step(np.zeros((3, 1), np.float32))
    np.testing.assert_array_equal(step.is_first, [False, True, True])
    np.testing.assert_array_equal(step.is_last, [False, False, False])
    np.testing.assert_array_equal(step.discount, [1, 1, 1])
    np.testing.assert_array_equal(step.reward != 0, [True, False, False])
    np.testing.assert_array_equal(script.steps_taken, [20, 0, 0])
    snapshot = env.snapshot()
    np.testing.assert_array_equal(snapshot["decisions"], [4, 0, 0])
    np.testing.assert_array_equal(snapshot["episodes"], [1, 2, 2])
    assert_equal(envs.make("dmc:lqr_lqr_2_1", 3, 0, action_repeat=5, size=16).restore(snapshot), step)


class Script:
    """Stands in for an environment's pool and ends rows, with discount 0, at chosen control steps."""

    def __init__(self, env):
        self.pool, env._pool = env._pool, self
        self.steps_taken = np.zeros(len(env._episodes), int)
        self.ends = {}

    def end_rows_at(self, ends):
        self.ends = ends

    def reset(self, rows):
        self.steps_taken[rows] = 0
        return self.pool.reset(rows)

    def step(self, control, rows):
        self.control = control
        arrival = self.pool.step(control, rows)
        rows = arrival.observation.env_id
        self.steps_taken[rows] += 1
        ended = np.array([self.ends.get(row) == self.steps_taken[row] for row in rows])
        return arrival._replace(step_type=np.where(ended, 2, 1), discount=np.where(ended, 0.0, 1.0))

    def render(self, env_ids):
        return self.pool.render(env_ids=env_ids)


RESTORED = [
    "finger_spin",
    "finger_turn_hard",
    "reacher_easy",
    "ball_in_cup_catch",
    "walker_walk",
    "cartpole_swingup",
    "fish_swim",
    "manipulator_bring_ball",
    "point_mass_hard",
    "quadruped_escape",
]


@pytest.mark.parametrize(
    ("task", "rows", "observe"),
    [
        ("cheetah_run", 2, "image"),
        *((task, 1, "image") for task in RESTORED),
        *((task, 1, "image+state") for task in ("finger_turn_hard", "walker_walk")),
    ],
)
def test_restore_is_exact(task, rows, observe):
    """Snapshots in mid-episode, at a last row and at a first row, after several episodes, into a fresh environment."""
    options = {"episode_steps": 60, "size": 16, "action_repeat": 20, "observe": observe}
    env = envs.make(f"dmc:{task}", rows, 11, **options)
    env.reset()
    actions = random_actions(env, 12)
    steps, snapshots = [], []
    for action in actions:
        steps.append(env.step(action))
        snapshots.append(env.snapshot())
    fresh = envs.make(f"dmc:{task}", rows, 11, **options)
    last, first, middle = 6, 7, 9  # episodes have 3 decisions, 4 rows
    assert steps[last].is_last.all() and steps[first].is_first.all()
    assert_equal(fresh.restore(snapshots[first]), steps[first])
    assert len(snapshots[first]["actions"]) == 0 and len(snapshots[middle]["actions"]) == 2
    assert_equal(fresh.step(actions[first + 1]), steps[first + 1])
    assert_equal(fresh.restore(snapshots[middle]), steps[middle])  # that episode has begun already: another pool
    for index in range(middle + 1, len(actions)):
        assert_equal(fresh.step(actions[index]), steps[index])


def test_restore_goes_forward_in_the_same_pool():
    """A pool that has begun fewer episodes than the snapshot, in every row, is used again; its old actions go."""
    options = {"episode_steps": 60, "size": 16, "action_repeat": 20}
    env, behind = (envs.make("dmc:fish_swim", 2, 11, **options) for _ in range(2))
    env.reset(), behind.reset()
    actions = random_actions(env, 9)
    steps = [env.step(action) for action in actions]
    behind.step(actions[5])
    pool = behind._pool
    assert_equal(behind.restore(env.snapshot()), steps[-1])
    assert behind._pool is pool
    assert len(behind.snapshot()["actions"]) == 1
    assert_equal(behind.step(actions[0]), env.step(actions[0]))


def test_restore_after_a_reset_in_mid_episode(tmp_path):
    """A reset before an episode's end counts as an episode; a snapshot survives a file and does not alias."""
    env = envs.make("dmc:finger_turn_easy", 1, 4, size=16)
    env.reset()
    env.step(np.ones((1, 2)))
    env.reset()
    expected = env.step(np.ones((1, 2)))
    np.savez(tmp_path / "snapshot.npz", **env.snapshot())
    env.step(-np.ones((1, 2)))
    snapshot = dict(np.load(tmp_path / "snapshot.npz"))
    assert_equal(envs.make("dmc:finger_turn_easy", 1, 4, size=16).restore(snapshot), expected)
    with pytest.raises(UsageError, match="another environment"):
        envs.make("dmc:finger_turn_easy", 1, 5, size=16).restore(snapshot)


def test_two_pools_side_by_side():
    """Environments stepped in turn do not disturb each other, whatever their sizes."""
    alone = envs.make("dmc:walker_walk", 1, 0, size=32)
    actions = random_actions(alone, 3)
    expected = [alone.reset()] + [alone.step(action) for action in actions]
    left, right = envs.make("dmc:walker_walk", 1, 0, size=32), envs.make("dmc:cartpole_balance", 2, 0)
    steps = [left.reset()]
    right.reset()
    for action in actions:
        right.step(np.ones((2, 1)))
        steps.append(left.step(action))
    for step, other in zip(steps, expected, strict=True):
        assert_equal(step, other)


def test_unequal_bounds_are_stretched():
    """A quadruped's joints have different bounds; the agent sees [-1, 1] and reaches the ends of each."""
    env = envs.make("dmc:quadruped_walk", 1, 0, size=16)
    bounds = env._pool.action_spec()
    assert set(np.round(bounds.maximum, 3)) == {0.8, 1.0, 1.1}
    assert env.spec.action == (12, False, -1.0, 1.0)
    script = Script(env)
    env.reset()
    for action, expected in ((1, bounds.maximum), (-2, bounds.minimum), (0, (bounds.maximum + bounds.minimum) / 2)):
        env.step(np.full((1, 12), action))
        np.testing.assert_allclose(script.control[0], expected)


def test_drawing_quality(tmp_path, monkeypatch):
    """A smaller shadow map, or averaging in place of multisampling, changes frames a little and nothing else."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(gl, "require_rendering", lambda: None)
    steps = []
    for options in ({}, {"shadow_size": 1024}, {"shadow_size": 64}, {"supersample": 1}, {"supersample": 2}) * 2:
        env = envs.make("dmc:cheetah_run", 1, 0, **options)
        env.reset()
        steps.append(env.step(np.ones((1, 6))))
        np.testing.assert_array_equal(steps[0].reward, steps[-1].reward)
        assert steps[-1].obs.shape == (1, 64, 64, 3)
    large, small, jagged, smooth = [np.abs(step.obs.astype(int) - steps[0].obs).mean() for step in steps[1:5]]
    assert large < 0.1 and 0 < small < 1, (large, small)
    assert 0 < jagged < 2 and 0 < smooth < 3, (jagged, smooth)  # the floor's texture is finer when drawn larger
    for first, again in zip(steps[:5], steps[5:], strict=True):
        assert_equal(first, again)  # from the folder of links made the first time
    assert len(list(tmp_path.iterdir())) == 3


def test_average_of_pixels():
    frames = np.arange(2 * 4 * 6 * 1, dtype=np.uint8).reshape(2, 4, 6, 1)
    np.testing.assert_array_equal(dmc._average(frames, 2)[1, :, :, 0], [[28, 30, 32], [40, 42, 44]])


def test_every_task_has_its_dm_control_name():
    from dm_control import suite

    assert set(dmc.task_ids()) == {f"{domain}_{task}" for domain, task in suite.ALL_TASKS}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dmc:cheetah_rn", {}, "'cheetah_rn'. Did you mean cheetah_run"),
        ("dmc:", {}, "Allowed: acrobot_swingup"),
        ("dcm:cheetah_run", {}, "Did you mean dmc:cheetah_run?"),
        ("cheetah_run", {}, "family:task"),
        (None, {}, "family:task"),
        ("dmc:cheetah_run", {"action_repeats": 2}, "'action_repeats'. Did you mean action_repeat"),
        ("dmc:cheetah_run", {"action_repeat": 0}, "action_repeat=0"),
        ("dmc:cheetah_run", {"action_repeat": 2.0}, "None or an integer in [1, 100]"),
        ("dmc:cheetah_run", {"size": 8}, "integer in [16, 256]"),
        ("dmc:cheetah_run", {"action_repeat": True}, "action_repeat=True"),
        ("dmc:cheetah_run", {"episode_steps": 1001}, "episode_steps=1001"),
        ("dmc:cheetah_run", {"camera": -1}, "camera=-1"),
        ("dmc:cheetah_run", {"shadow_size": 1}, "shadow_size=1"),
        ("dmc:cheetah_run", {"supersample": 5}, "supersample=5"),
        ("dmc:cheetah_run", {"observe": "state"}, "unknown observe 'state'. Did you mean image+state"),
        ("dmc:cheetah_run", {"observe": None}, "Allowed: image, image+state."),
    ],
)
def test_refusals(name, options, said):
    with pytest.raises(UsageError) as error:
        envs.make(name, 1, 0, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_refused_counts_and_actions():
    for num_envs, seed in ((0, 0), (1.0, 0), (1, -1), (1, 2**31)):
        with pytest.raises(UsageError, match="num_envs|seed"):
            envs.make("dmc:cartpole_balance", num_envs, seed)
    with pytest.raises(UsageError, match="camera=2 is not allowed: CheetahRun-v1 has no such camera"):
        envs.make("dmc:cheetah_run", 1, 0, camera=2).reset()
    env = envs.make("dmc:cartpole_balance", 2, 0, size=16)
    with pytest.raises(UsageError, match="before reset"):
        env.step(np.zeros((2, 1)))
    with pytest.raises(UsageError, match="before reset"):
        env.snapshot()
    env.reset()
    with pytest.raises(UsageError, match=r"\(2,\): expected \(2, 1\)"):
        env.step(np.zeros(2))
    with pytest.raises(NonFiniteError, match=r"rows \[1\]"):
        env.step(np.float32([[0], [np.nan]]))


def run_alone(program, **settings):
    """Runs a program's text in a process of its own, with further environment variables."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | settings
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=100)


def test_draws_after_a_game_was_played_and_mujoco_imported():
    """In this order the first frame ended the process: an error of MuJoCo's own GL loader that cannot be caught."""
    program = (
        "from wmjax import envs\nenvs.make('atari:Pong', 1, 0).reset()\nimport mujoco\n"
        "print(envs.make('dmc:cartpole_balance', 1, 0, size=16).reset().obs.shape)"
    )
    child = run_alone(program)
    assert child.stdout.strip() == "(1, 16, 16, 3)", child


def test_a_machine_without_egl_is_told_what_to_install(tmp_path):
    """Drawing without an EGL driver would abort the process; it must be one line of UsageError instead."""
    program = (
        "from wmjax import envs\nfrom wmjax.types import UsageError\n"
        "try: envs.make('dmc:cartpole_balance', 1, 0)\nexcept UsageError as error: print('told:', error)"
    )
    child = run_alone(program, __EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent", XDG_CACHE_HOME=str(tmp_path))
    lines = child.stdout.strip().splitlines()
    assert child.returncode == 0 and len(lines) == 1, child
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "a failure is not remembered"
    assert "told: off-screen rendering (EGL)" in lines[0] and "libegl1 libopengl0 libgl1-mesa-dri" in lines[0]
