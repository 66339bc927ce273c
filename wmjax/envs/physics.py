"""MuJoCo itself as environment and as model: "physics:cheetah_run", and the other six tasks of PlaNet.

The observation is the simulator's state: uint8 [S, 8], the bytes of S float64 numbers (JAX has no float64 here). So a
snapshot is exact and instant, and `advance` plays any actions from any states. Episodes begin and are rewarded as in
dm_control: the environment steps dm_control's own physics, `advance` calls `mujoco.rollout`, which takes the same
steps in threads, and rewards of `wmjax/envs/physics_rewards.py`.

    S numbers of a state:   full physics (time, positions, velocities) | warm start of the solver | goal of the episode

Options of `make("physics:...", num_envs, seed, ...)`:

    action_repeat   control steps a decision, 1 to 100. None: PlaNet's number for the task
    episode_steps   time limit in control steps, 1 to 1000. None: 1000
    observe         state; or image+state: {"image": uint8 [X, Y, 3], "state": uint8 [S, 8]}, drawn by dm_control. Draw
                    these and `dmc` images in different processes: their contexts get mixed up
    size            height and width of the image, 16 to 256 (64)
    camera          camera of the model, by number (0, the papers' view)
    shadow_size     side of the shadow map in pixels, 64 to 4096. None: as in the suite's models. A smaller one draws
                    faster in software
    threads         of `advance`, 1 to 1024. None: one for every core this process may use
"""

import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.envs import drawing_thread, snapshots
from wmjax.envs.check import (
    check_action,
    check_begun,
    check_int,
    check_name,
    check_options,
    identity_of,
)
from wmjax.envs.dmc import ACTION_REPEAT, EPISODE_STEPS
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError

OBSERVED = ("state", "image+state")
BYTES = 8  # of a float64


class PhysicsOptions(NamedTuple):
    """See the module's text."""

    action_repeat: int | None = None
    episode_steps: int | None = None
    observe: str = "state"
    size: int = 64
    camera: int = 0
    shadow_size: int | None = None
    threads: int | None = None


def make(task: str, seeds: list[int], options: dict[str, Any]) -> "PhysicsVecEnv":
    """Makes a PhysicsVecEnv.

    Args:
        task: one of PlaNet's seven, by dm_control's name.
        seeds: of each row [E], as `wmjax.envs.seeds.row_seeds` makes them.
        options: fields of PhysicsOptions.

    Raises:
        UsageError: unknown task or option, a value out of range, or versions of mujoco and dm_control that do not fit.
    """
    check_name("physics task", task, ACTION_REPEAT)
    options = check_options("physics", options, PhysicsOptions)
    check_int("action_repeat", options.action_repeat, low=1, high=100, optional=True)
    check_int("episode_steps", options.episode_steps, low=1, high=EPISODE_STEPS, optional=True)
    check_name("observe", options.observe, OBSERVED)
    check_int("size", options.size, low=16, high=256)
    check_int("camera", options.camera, low=0, high=100)
    check_int("shadow_size", options.shadow_size, low=64, high=4096, optional=True)
    check_int("threads", options.threads, low=1, high=1024, optional=True)
    options = options._replace(
        action_repeat=options.action_repeat or ACTION_REPEAT[task],
        episode_steps=options.episode_steps or EPISODE_STEPS,
        threads=options.threads or len(os.sched_getaffinity(0)),
    )
    return PhysicsVecEnv(task, seeds, options)


class PhysicsVecEnv:
    """E environments in one simulator; see `wmjax.envs.VecEnv`. Attributes: spec and options, as used."""

    def __init__(self, task: str, seeds: list[int], options: PhysicsOptions):
        self._task_name, self._num_envs, self._seeds, self.options = task, len(seeds), seeds, options
        repeat, steps = options.action_repeat, options.episode_steps
        assert repeat and steps and options.threads, "make fills in the defaults"
        self._repeat: int = repeat
        self._time_limit: int = steps  # in control steps
        self._identity = identity_of("physics", task, seeds, tuple(options._replace(threads=None)))
        self._simulator = Simulator(task, options.threads, options.shadow_size)
        self._states = np.zeros((len(seeds), self._simulator.size))  # float64 [E, S]
        self._elapsed = np.zeros(len(seeds), np.int32)  # control steps
        self._episodes = np.zeros(len(seeds), np.int32)
        self._step: Step | None = None
        obs: Any = jax.ShapeDtypeStruct((self._simulator.size, BYTES), np.uint8)
        if options.observe == "image+state":
            obs = dict(image=jax.ShapeDtypeStruct((options.size, options.size, 3), np.uint8), state=obs)
        limit = -(-steps // repeat)
        action = ActionSpec(self._simulator.actions, False, -1.0, 1.0)
        self.spec = EnvSpec(obs, action, repeat, limit)

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        rows = np.ones(self._num_envs, bool)
        self._begin(rows)
        zeros = np.zeros((self._num_envs, self.spec.action.size), np.float32)
        return self._arrive(zeros, np.zeros(self._num_envs), rows, ~rows)

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision, float32 [E, A] in [-1, 1], in every row that goes on; begins an episode in the others."""
        check_begun(self._step is not None, "step")
        action = check_action(action, self._num_envs, self.spec.action)
        is_first = np.array(self._step.is_last)
        self._begin(is_first)
        reward = np.zeros(self._num_envs)
        for row in np.flatnonzero(~is_first):
            steps = min(self._repeat, self._time_limit - self._elapsed[row])
            self._states[row], reward[row] = self._simulator.step(self._states[row], action[row], steps)
            self._elapsed[row] += steps
        prev_action = np.where(is_first[:, None], np.float32(0), action)
        return self._arrive(prev_action, reward, is_first, self._elapsed >= self._time_limit)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Plays actions from states; no environment of this pool moves, and no time limit counts.

        Args:
            states: uint8 [N, S, 8], as observed; actions: float32 [H, N, A], clipped to [-1, 1].

        Returns:
            (uint8 [H, N, S, 8], float64 [H, N]): the states after each decision, and rewards summed over its action
            repeat. Positions and velocities are dm_control's bit for bit. The states' warm starts are zeros, as
            rollouts give none away: what is played on from such a state differs in the eighth digit.
        """
        after, rewards = self._simulator.play(_numbers(states), actions, self._repeat)
        return _bytes(after), rewards

    def close(self) -> None:
        """Ends the threads."""
        self._simulator.close()

    def snapshot(self) -> dict[str, Any]:
        """Returns the state: identity (int), states [E, S], elapsed [E], episodes [E], the last Step without obs."""
        state = dict(states=self._states, elapsed=self._elapsed, episodes=self._episodes)
        return snapshots.take(self._identity, state, self._step)

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Goes back to a snapshot."""
        arrays = snapshots.arrays_of(snapshot, self._identity, "states", "elapsed", "episodes")
        self._states, self._elapsed, self._episodes = arrays
        self._step = snapshots.step_of(snapshot, self._see())
        return jax.tree.map(np.copy, self._step)

    def _begin(self, rows: np.ndarray) -> None:
        """Begins an episode where bool [E] `rows` is set."""
        self._elapsed[rows] = 0
        self._episodes += rows
        for row in np.flatnonzero(rows):
            rng = np.random.SeedSequence((self._seeds[row], int(self._episodes[row])))
            self._states[row] = self._simulator.reset(int(rng.generate_state(1)[0]))

    def _arrive(self, prev_action: np.ndarray, reward: np.ndarray, is_first: np.ndarray, is_last: np.ndarray) -> Step:
        """Keeps the Step, for a snapshot, and returns a copy that its user may write to."""
        discount = np.ones(self._num_envs, np.float32)  # these tasks end by time alone
        self._step = Step(prev_action, self._see(), np.float32(reward), discount, is_first, is_last)
        return jax.tree.map(np.copy, self._step)

    def _see(self) -> Any:
        """Returns the observation of the present states."""
        states = _bytes(self._states)
        if self.options.observe == "state":
            return states
        images = [self._simulator.draw(state, self.options.size, self.options.camera) for state in self._states]
        return dict(image=np.stack(images), state=states)


class Simulator:
    """MuJoCo for one task, without memory of its own: states go in, states come out. By dm_control, or by rollouts.

    Attributes: size, S; actions, A; substeps: physics steps of a control step.
    """

    def __init__(self, task: str, threads: int, shadow_size: int | None = None):
        os.environ.setdefault("MUJOCO_GL", "egl")  # else dm_control asks for a screen
        try:
            import mujoco
            from dm_control import suite
            from mujoco import rollout

            from wmjax.envs.physics_rewards import REWARDS, Situation

            logging.getLogger("absl").setLevel(logging.ERROR)  # the suite's models have an attribute now deprecated
            domain, _, name = task.rpartition("_")
            self._environment = suite.load(domain, name)
            self._environment.reset()  # finger's damping is set at the start of an episode
        except (ImportError, AttributeError, RuntimeError) as error:
            raise UsageError(f"mujoco and dm_control do not work together here: {error}") from error
        self._mujoco, self._reward, self._situation = mujoco, REWARDS[task], Situation
        self._task, self._physics = self._environment.task, self._environment.physics
        self._model, self._data = self._physics.model.ptr, self._physics.data.ptr
        self._free: Callable | None = None  # of what draws, once it has drawn
        if shadow_size:
            self._model.vis.quality.shadowsize = shadow_size
        self._full = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self.substeps = round(self._environment.control_timestep() / self._physics.timestep())
        self._has_goal = task == "reacher_easy"
        self.size = self._full + self._model.nv + (2 if self._has_goal else 0)
        self.actions = self._model.nu
        self._threads = [mujoco.MjData(self._model) for _ in range(threads)]
        self._rollout = rollout.Rollout(nthread=threads if threads > 1 else 0)

    def close(self) -> None:
        """Ends the threads and frees what draws."""
        self._rollout.close()
        if self._free is not None:
            self._free()

    def reset(self, seed: int) -> np.ndarray:
        """The first state of an episode, float64 [S]."""
        self._task.random.seed(seed)
        self._environment.reset()
        return self._read()

    def step(self, state: np.ndarray, action: np.ndarray, count: int) -> tuple[np.ndarray, float]:
        """(state [S] after `count` control steps of one action [A], sum of their rewards), by dm_control itself."""
        self._write(state)
        reward = 0.0
        for _ in range(count):
            self._task.before_step(action, self._physics)
            self._physics.step(self.substeps)
            self._task.after_step(self._physics)
            reward += self._task.get_reward(self._physics)
        return self._read(), reward

    def draw(self, state: np.ndarray, size: int, camera: int) -> np.ndarray:
        """The image of a state, uint8 [size, size, 3]."""
        self._write(state)
        try:
            image = drawing_thread.call(self._physics.render, size, size, camera_id=camera)
        except (RuntimeError, ImportError) as error:
            raise UsageError(f"dm_control cannot draw on this machine: {str(error).splitlines()[0]}") from error
        if self._free is None:
            self._free = drawing_thread.free_with(self, self._physics.free)
        return image

    def play(self, states: np.ndarray, actions: np.ndarray, repeat: int) -> tuple[np.ndarray, np.ndarray]:
        """(states [H, N, S], rewards [H, N]) after each of actions [H, N, A] from states [N, S].

        repeat: control steps of each action.
        """
        horizon, rows, _ = actions.shape
        control = np.clip(actions.astype(np.float64).swapaxes(0, 1), -1, 1)  # [N, H, A]
        control = control.repeat(repeat * self.substeps, axis=1)
        # A row of sensor data belongs to the state before its step: one step more tells those of the last state.
        control = np.concatenate([control, control[:, -1:]], axis=1)
        after, sensors = self.rollout(states, control)
        ends = np.arange(1, horizon * repeat + 1) * self.substeps  # steps taken at the end of each control step
        after, sensors = after[:, ends - 1], sensors[:, ends]
        joints = 1 + self._model.nq  # after the time
        goal = states[:, None, self._full + self._model.nv :]
        goals = np.broadcast_to(goal, (rows, len(ends), goal.shape[2]))
        rewards = self._reward(
            self._situation(
                qpos=after[..., 1:joints],
                qvel=after[..., joints : joints + self._model.nv],
                control=control[:, ends - 1],
                sensors=sensors,
                goal=goals,
            )
        )
        decided = slice(repeat - 1, None, repeat)
        cold = np.zeros((rows, horizon, self._model.nv))
        after = np.concatenate([after[:, decided], cold, goals[:, decided]], axis=-1)
        return after.swapaxes(0, 1), rewards.reshape(rows, horizon, repeat).sum(axis=-1).T

    def rollout(self, states: np.ndarray, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`mujoco.rollout` from states [N, S] under control [N, T, A]: (full physics [N, T, .], sensors [N, T, .])."""
        full, warm_start, _ = np.split(states, [self._full, self._full + self._model.nv], axis=1)
        return self._rollout.rollout(
            self._model,
            self._threads,
            initial_state=np.ascontiguousarray(full),
            control=control,
            initial_warmstart=np.ascontiguousarray(warm_start),
        )

    def _read(self) -> np.ndarray:
        """The simulator's present state, float64 [S]."""
        full = np.empty(self._full)
        self._mujoco.mj_getState(self._model, self._data, full, self._mujoco.mjtState.mjSTATE_FULLPHYSICS)
        goal = self._physics.named.model.geom_pos["target", :2] if self._has_goal else []
        return np.concatenate([full, self._data.qacc_warmstart, goal])

    def _write(self, state: np.ndarray) -> None:
        """Puts the simulator into a state [S]."""
        full, warm_start, goal = np.split(state, [self._full, self._full + self._model.nv])
        self._mujoco.mj_setState(self._model, self._data, full, self._mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._data.qacc_warmstart[:] = warm_start
        if self._has_goal:
            self._physics.named.model.geom_pos["target", :2] = goal
        self._mujoco.mj_step1(self._model, self._data)  # dm_control's steps begin with the second half of one


def _bytes(numbers: np.ndarray) -> np.ndarray:
    """float64 [..., S] -> uint8 [..., S, 8]."""
    return np.ascontiguousarray(numbers)[..., None].view(np.uint8)


def _numbers(states: np.ndarray) -> np.ndarray:
    """uint8 [..., S, 8] -> float64 [..., S]."""
    return np.ascontiguousarray(states).view(np.float64)[..., 0]
