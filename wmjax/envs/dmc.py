"""The DeepMind Control Suite from pixels, batched by envpool: "dmc:<domain>_<task>", for example "dmc:cheetah_run".

One decision is R control steps with the same action, R being the action repeat: rewards are summed and one frame is
drawn at the end (PlaNet, Hafner et al. 2019, section 5 and appendix A). envpool's own frame_skip is something else,
the number of physics steps in a control step: it stays at its default, which is the suite's number (10 for ball_in_cup
and walker, 2 for finger, 1 for cheetah, cartpole and reacher). The episode ends with the suite's time limit of 1000
control steps, hence after ceil(1000 / R) decisions; a limit inside a repeat cuts that repeat short.

Options of `make("dmc:...", num_envs, seed, ...)`:

    action_repeat   control steps a decision, 1 to 100. None: the paper's number for its tasks, otherwise 2
    size            height and width of the square image, 16 to 256 (64)
    camera          camera of the model, by number (0, the papers' view)
    episode_steps   time limit in control steps, 1 to 1000. None: 1000
    shadow_size     side of the shadow map in pixels, 64 to 4096. None: as in the suite's models. A smaller one draws
                    faster in software; frames differ at the edges of shadows (mean 0.02 grey levels, a pixel up to 57)
    supersample     1 to 4: draws without multisampling, so many times larger each way, and averages. In software 2 is
                    about twice as fast as the suite's four samples a pixel (None); textures come out finer (mean
                    difference 2 grey levels)
    observe         image; or image+state: {"image": uint8 [X, Y, 3], "position": float32 [D], ...}, with what the suite
                    observes where it draws nothing, of the moment that the frame shows, under dm_control's names

envpool can neither read nor write a simulator's state. Random numbers are drawn at the start of an episode only, so a
state is a function of (seed, number of episodes begun, actions since the last start): this is what a snapshot holds,
and `restore` replays it without drawing, in about 1 ms an episode and row. A pool cannot go back: restoring into one
that has begun as many episodes as the snapshot or more makes a new pool, and each pool made leaves about 34 MB behind.
Restore into a freshly made one.

Frames are those of the MuJoCo inside envpool (3.6 in envpool 1.2.5); newer ones draw another floor. quadruped_escape
is drawn with the terrain of its first episode for ever, while the physics has a new terrain in each.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.envs import dmc_render_quality, gl
from wmjax.envs.check import (
    check_action,
    check_begun,
    check_identity,
    check_int,
    check_name,
    check_options,
    identity_of,
)
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError

ACTION_REPEAT = {  # PlaNet, appendix A; its cartpole task is swingup: balance as a task of the same domain
    "cartpole_balance": 8,
    "cartpole_swingup": 8,
    "reacher_easy": 4,
    "cheetah_run": 4,
    "finger_spin": 2,
    "ball_in_cup_catch": 4,
    "walker_walk": 2,
}
OTHER_ACTION_REPEAT = 2  # not in the paper: the smallest that it uses
EPISODE_STEPS = 1000  # the suite's time limit in control steps
OBSERVED = ("image", "image+state")
ELSEWHERE = {  # what envpool lists in every task of a domain though the suite observes it in others of them alone
    "dog_run": ("ball_state", "target_position"),
    "dog_stand": ("ball_state", "target_position"),
    "dog_trot": ("ball_state", "target_position"),
    "dog_walk": ("ball_state", "target_position"),
    "finger_spin": ("target_position", "dist_to_target"),
    "fish_upright": ("target",),
    "humanoid_run": ("position",),
    "humanoid_run_pure_state": ("joint_angles", "head_height", "extremities", "torso_vertical", "com_velocity"),
    "humanoid_stand": ("position",),
    "humanoid_walk": ("position",),
    "quadruped_escape": ("ball_state", "target_position"),
    "quadruped_fetch": ("origin", "rangefinder"),
    "quadruped_run": ("origin", "rangefinder", "ball_state", "target_position"),
    "quadruped_walk": ("origin", "rangefinder", "ball_state", "target_position"),
}
UNBOUNDED = 1e9  # MuJoCo writes 1e10 for a control without limits (lqr)
LAST = 2  # dm_env.StepType.LAST


class DmcOptions(NamedTuple):
    """See the module's text."""

    action_repeat: int | None = None
    size: int = 64
    camera: int = 0
    episode_steps: int | None = None
    shadow_size: int | None = None
    supersample: int | None = None
    observe: str = "image"


def task_ids() -> dict[str, str]:
    """Returns envpool's ids keyed by dm_control's names: {"ball_in_cup_catch": "BallInCupCatch-v1", ...}."""
    envpool = gl.import_envpool()
    tasks = {}
    for env_id in envpool.list_all_envs():
        module, _, settings = envpool.registration.registry.specs[env_id]
        if module == "envpool.mujoco.dmc":
            tasks[f"{_domain(env_id, settings['task_name'])}_{settings['task_name']}"] = env_id
    return tasks


def state_sizes(task: str) -> dict[str, int]:
    """Returns the length D of each low-dimensional observation of a task: {"position": 8, "velocity": 9}."""
    spec = gl.import_envpool().make_spec(task_ids()[task]).observation_spec()
    absent = ("env_id", "players", *ELSEWHERE.get(task, ()))  # the first two say which row an arrival is of
    return {name: math.prod(entry.shape) for name, entry in spec._asdict().items() if name not in absent}


def _domain(env_id: str, task: str) -> str:
    """Returns "ball_in_cup" for ("BallInCupCatch-v1", "catch"), and "humanoid_CMU" for ("HumanoidCMURun-v1", "run")."""
    suffix = "".join(part[:1].upper() + part[1:] for part in task.split("_")) + "-v1"
    words = re.findall(r"[A-Z][a-z]+|[A-Z]+", env_id.removesuffix(suffix))
    return "_".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words)


def make(task: str, seeds: list[int], options: dict[str, Any]) -> "DmcVecEnv":
    """Makes a DmcVecEnv.

    Args:
        task: dm_control's name, "<domain>_<task>".
        seeds: of each row [E], as `wmjax.envs.seeds.row_seeds` makes them.
        options: fields of DmcOptions.

    Raises:
        UsageError: unknown task or option, a value out of range, or a machine that cannot render.
    """
    options = check_options("dmc", options, DmcOptions)
    check_int("action_repeat", options.action_repeat, low=1, high=100, optional=True)
    check_int("size", options.size, low=16, high=256)
    check_int("camera", options.camera, low=0, high=100)
    check_int("episode_steps", options.episode_steps, low=1, high=EPISODE_STEPS, optional=True)
    check_int("shadow_size", options.shadow_size, low=64, high=4096, optional=True)
    check_int("supersample", options.supersample, low=1, high=4, optional=True)
    check_name("observe", options.observe, OBSERVED)
    ids = task_ids()
    check_name("dmc task", task, ids)
    gl.require_rendering()
    options = options._replace(
        action_repeat=options.action_repeat or ACTION_REPEAT.get(task, OTHER_ACTION_REPEAT),
        episode_steps=options.episode_steps or EPISODE_STEPS,
    )
    return DmcVecEnv(ids[task], seeds, options, {} if options.observe == "image" else state_sizes(task))


class DmcVecEnv:
    """E environments of one task in one envpool; see `wmjax.envs.VecEnv`.

    Attributes:
        spec: EnvSpec; actions are in [-1, 1] whatever the task's own bounds.
        options: DmcOptions as used, defaults filled in.
    """

    def __init__(self, env_id: str, seeds: list[int], options: DmcOptions, sizes: dict[str, int]):
        """Args as of `make`, options filled in; sizes: of what is observed beside the image, as `state_sizes`."""
        self._env_id, self._num_envs, self._seeds, self.options = env_id, len(seeds), seeds, options
        repeat, steps = options.action_repeat, options.episode_steps
        assert repeat and steps, "make fills in the defaults"
        self._repeat: int = repeat
        # Without `observe` where it is image, so that snapshots from before there was a choice are still good.
        self._identity = identity_of(env_id, seeds, tuple(options) if sizes else tuple(options)[:-1])
        self._state = {name: np.zeros((len(seeds), size), np.float32) for name, size in sizes.items()}
        self._pool = self._make_pool()
        bounds = self._pool.action_spec()
        low = np.broadcast_to(bounds.minimum, bounds.shape).astype(np.float64)
        high = np.broadcast_to(bounds.maximum, bounds.shape).astype(np.float64)
        unbounded = high > UNBOUNDED
        low, high = np.where(unbounded, -1.0, low), np.where(unbounded, 1.0, high)
        self._centre, self._scale = (high + low) / 2, (high - low) / 2
        size, actions = options.size, bounds.shape[0]
        action = ActionSpec(actions, False, -1.0, 1.0)
        limit = -(-steps // self._repeat)
        obs: Any = jax.ShapeDtypeStruct((size, size, 3), np.uint8)
        if sizes:
            obs = dict(image=obs) | {name: jax.ShapeDtypeStruct((n,), np.float32) for name, n in sizes.items()}
        self.spec = EnvSpec(obs, action, self._repeat, limit)

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        rows = np.arange(self._num_envs)
        self._begin(rows)
        self._actions = []
        return self._arrive(np.zeros((self._num_envs, self.spec.action.size), np.float32), rows, *self._nothing())

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision, float32 [E, A] in [-1, 1], in every row that goes on; begins an episode in the others."""
        action = check_action(action, self._num_envs, self.spec.action)
        check_begun(bool(self._episodes.any()), "step")
        first, going = np.flatnonzero(self._is_last), np.flatnonzero(~self._is_last)
        self._begin(first)
        outcome = self._decide(action, going)
        return self._arrive(action, first, *outcome)

    def close(self) -> None:
        """Drops the pool; its threads end with it."""
        self._pool = None

    def snapshot(self) -> dict[str, Any]:
        """Returns what a replay needs.

        identity: int, a checksum of everything `make` was given; episodes, decisions: int32 [E], episodes begun and
        decisions taken in the current one; actions: float32 [max(decisions), E, A], aligned at the end.
        """
        check_begun(bool(self._episodes.any()), "snapshot")
        shape = (-1, self._num_envs, self.spec.action.size)
        return {
            "identity": self._identity,
            "episodes": self._episodes.copy(),
            "decisions": self._decisions.copy(),
            "actions": np.array(self._actions, np.float32).reshape(shape),
        }

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Replays a snapshot without drawing, then draws the Step that was current when it was taken."""
        check_identity(snapshot, self._identity)
        episodes, decisions = np.asarray(snapshot["episodes"]), np.asarray(snapshot["decisions"])
        actions = np.asarray(snapshot["actions"], np.float32)
        if np.any(self._episodes >= episodes):
            self._pool = self._make_pool()
        while np.any(self._episodes < episodes):
            self._begin(np.flatnonzero(self._episodes < episodes))
            if np.all(self._episodes == 1):
                self._draw()  # quadruped_escape is drawn for ever with the terrain of its first frame
        self._actions = []
        outcome = self._nothing()
        for back in range(len(actions), 0, -1):
            outcome = self._decide(actions[-back], np.flatnonzero(decisions >= back))
        last = actions[-1] if len(actions) else np.zeros((self._num_envs, self.spec.action.size), np.float32)
        return self._arrive(last, np.flatnonzero(decisions == 0), *outcome)

    def _make_pool(self) -> Any:
        """Makes an envpool whose next reset begins the first episode of every row, and forgets the history."""
        envpool = gl.import_envpool()
        self._episodes = np.zeros(self._num_envs, np.int32)
        self._decisions = np.zeros(self._num_envs, np.int32)
        self._is_last = np.zeros(self._num_envs, bool)
        self._actions = []  # the last max(decisions) arrays [E, A]
        drawn = self.options.size * (self.options.supersample or 1)
        base_path = envpool.registration.registry.specs[self._env_id][2]["base_path"]
        base_path = dmc_render_quality.assets(
            base_path, self.options.shadow_size, multisample=self.options.supersample is None
        )
        return envpool.make_dm(
            self._env_id,
            num_envs=self._num_envs,
            seed=self._seeds,
            max_episode_steps=self.options.episode_steps,
            render_mode="rgb_array",
            render_width=drawn,
            render_height=drawn,
            render_camera_id=self.options.camera,
            base_path=base_path,
        )

    def _begin(self, rows: np.ndarray) -> None:
        """Begins an episode in some rows."""
        if len(rows):
            self._keep_state(self._pool.reset(rows.astype(np.int32)).observation)
            self._episodes[rows] += 1
            self._decisions[rows] = 0
            self._is_last[rows] = False

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the (reward, discount) of rows that only just began."""
        return np.zeros(self._num_envs, np.float32), np.ones(self._num_envs, np.float32)

    def _decide(self, action: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Applies float32 [E, A] for R control steps in some rows; a row that ends inside the repeat stops there.

        Returns:
            (reward, discount), float32 [E]; 0 and 1 for the other rows.
        """
        reward, discount = self._nothing()
        total = np.zeros(self._num_envs)
        self._decisions[rows] += 1
        self._actions.append(action)
        self._actions = self._actions[len(self._actions) - int(self._decisions.max()) :]
        control = self._centre + self._scale * action.astype(np.float64)
        for _ in range(self._repeat):
            if not len(rows):
                break
            arrival = self._pool.step(control[rows], rows.astype(np.int32))
            rows = arrival.observation.env_id.astype(np.int64)  # a part of the pool arrives in any order
            self._keep_state(arrival.observation)
            total[rows] += arrival.reward
            ended = arrival.step_type == LAST
            discount[rows[ended]] = arrival.discount[ended] != 0
            self._is_last[rows] = ended
            rows = np.sort(rows[~ended])
        reward[:] = total
        return reward, discount

    def _arrive(self, action: np.ndarray, first: np.ndarray, reward: np.ndarray, discount: np.ndarray) -> Step:
        """Draws every row and puts together the Step; `first` are the rows that only just began."""
        is_first = np.zeros(self._num_envs, bool)
        is_first[first] = True
        prev_action = np.where(is_first[:, None], np.float32(0), action)
        return Step(prev_action, self._see(), reward, discount, is_first, self._is_last.copy())

    def _keep_state(self, observation: Any) -> None:
        """Keeps what rows of the pool observe on arriving, where more than images is asked for."""
        for name, kept in self._state.items():
            kept[observation.env_id] = getattr(observation, name).reshape(-1, kept.shape[1])

    def _see(self) -> Any:
        """Returns the observation of the present states."""
        if not self._state:
            return self._draw()
        return dict(image=self._draw()) | {name: kept.copy() for name, kept in self._state.items()}

    def _draw(self) -> np.ndarray:
        """Returns every row's frame, uint8 [E, size, size, 3]."""
        try:
            frames = np.array(self._pool.render(env_ids=np.arange(self._num_envs, dtype=np.int32)))
        except IndexError:
            raise UsageError(
                f"camera={self.options.camera} is not allowed: {self._env_id} has no such camera."
            ) from None
        return frames if self.options.supersample is None else _average(frames, self.options.supersample)


def _average(frames: np.ndarray, n: int) -> np.ndarray:
    """uint8 [E, n * X, n * Y, C] -> [E, X, Y, C], the rounded mean of n x n pixels each."""
    rows, height, width, channels = frames.shape
    blocks = frames.reshape(rows, height // n, n, width // n, n, channels)
    return ((blocks.sum(axis=(2, 4), dtype=np.uint16) + n * n // 2) // (n * n)).astype(np.uint8)
