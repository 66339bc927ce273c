"""Atari 2600 games, batched by envpool: "atari:<Game>" by their gym names, for example "atari:MsPacman".

The protocol is that of NoFrameskip-v4 with the usual wrappers, as in Smaller World Models (Robine et al. 2023) and
SimPLe: no sticky actions, an action lasts four frames, the frame shown is the pixelwise maximum of the last two, up to
30 no-ops and then FIRE (in games that have it) begin an episode, which ends when the game is over or after 108,000
frames. Rewards are the game's own points, not clipped.

Options of `make("atari:...", num_envs, seed, ...)`:

    size             height and width of the image, one number or a pair, 8 to 256 each (96); a game draws 210 x 160
    colour           True: three channels, RGB. False: one, grey (False)
    stack            newest frames in an image's channels, oldest first, 1 to 16 (1). A replay of stacked images holds
                     every frame so many times: `wmjax.ops.frames.stack` makes stacks of single frames after sampling
    action_repeat    frames a decision, 1 to 100 (4)
    noops            most no-ops before an episode, 1 to 100 (30); at least one is played
    fire_reset       press FIRE at an episode's start (True)
    full_action_set  all 18 actions of the joystick (False: those that the game uses, see `wmjax/envs/atari_actions.py`)
    actions          numbers of the joystick's actions, such as (0, 2, 3, 4, 5), as the environment's 0, 1, ... (None)
    sticky           probability that a frame repeats the action before (0.0)
    life_loss        True: losing a life ends the episode, with discount 0; the next one goes on in the same game
    episode_steps    time limit in decisions, 1 to 27,000. None: 108,000 frames
    crop             rows cut away at the image's lower edge after resizing, 0 to height - 8 (0). What `spec` and the
                     steps show has height - crop rows

envpool can neither read nor write an emulator's state. A game is a function of the seed, the number of games begun and
the actions since it began: this is what a snapshot holds and `restore` replays, some 5,000 decisions a second. With
life_loss or sticky actions it is a function of everything that ever happened, and the snapshot holds all of it.
"""

import re
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax.envs import gl
from wmjax.envs.atari_actions import full_set, places
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

FRAMES = 108_000  # the usual time limit: half an hour of play
LAST = 2  # dm_env.StepType.LAST
OTHERS_MARKS = r"(?i)^(ale|atari)[/_:]|(noframeskip|deterministic|-ram)*(-v\d+)?$"  # ALE/Pong-v5, atari_pong
BEGIN = -1  # stands in the history for a reset


class AtariOptions(NamedTuple):
    """See the module's text."""

    size: Any = 96
    colour: bool = False
    stack: int = 1
    action_repeat: int = 4
    noops: int = 30
    fire_reset: bool = True
    full_action_set: bool = False
    sticky: float = 0.0
    life_loss: bool = False
    episode_steps: int | None = None
    crop: int = 0
    actions: Any = None


def games() -> dict[str, str]:
    """Returns envpool's ids by game: {"MsPacman": "MsPacman-v5", ...}."""
    envpool = gl.import_envpool()
    specs = envpool.registration.registry.specs
    ids = [env_id for env_id in envpool.list_all_envs() if specs[env_id][0] == "envpool.atari"]
    return {env_id.removesuffix("-v5"): env_id for env_id in ids}


def make(game: str, seeds: list[int], options: dict[str, Any]) -> "AtariVecEnv":
    """Makes an AtariVecEnv.

    Args:
        game: its gym name without a version.
        seeds: of each row [E], as `wmjax.envs.seeds.row_seeds` makes them.
        options: fields of AtariOptions.

    Raises:
        UsageError: unknown game or option, or a value of the wrong type or range.
    """
    chosen = check_options("atari", options, AtariOptions)
    size = chosen.size if isinstance(chosen.size, tuple | list) else (chosen.size,) * 2
    if len(size) != 2:
        raise UsageError(f"size={chosen.size!r} is not allowed: expected one number or two, height and width.")
    for side in size:
        check_int("size", side, low=8, high=256)
    check_int("crop", chosen.crop, low=0, high=size[0] - 8)
    check_int("stack", chosen.stack, low=1, high=16)
    check_int("action_repeat", chosen.action_repeat, low=1, high=100)
    check_int("noops", chosen.noops, low=1, high=100)
    for name in ("colour", "fire_reset", "full_action_set", "life_loss"):
        if not isinstance(getattr(chosen, name), bool):
            raise UsageError(f"{name}={getattr(chosen, name)!r} is not allowed: expected True or False.")
    if type(chosen.sticky) not in (int, float) or not 0 <= chosen.sticky < 1:
        raise UsageError(f"sticky={chosen.sticky!r} is not allowed: expected a number in [0, 1).")
    longest = -(-FRAMES // chosen.action_repeat)
    check_int("episode_steps", chosen.episode_steps, low=1, high=longest, optional=True)
    ids = games()
    check_name("atari game", game, ids, meant=re.sub(OTHERS_MARKS, "", game))
    check_actions(game, chosen)
    actions = chosen.actions and tuple(chosen.actions)
    steps = chosen.episode_steps or longest
    return AtariVecEnv(ids[game], seeds, chosen._replace(size=tuple(size), episode_steps=steps, actions=actions))


def check_actions(game: str, options: AtariOptions) -> None:
    """Raises UsageError unless `actions` are None, or different actions of a game, and no other set is asked for."""
    if options.actions is None:
        return
    allowed, actions = full_set(game), options.actions
    known = isinstance(actions, tuple | list) and all(type(x) is int and x in allowed for x in actions)
    if not known or not actions or len(set(actions)) != len(actions):
        raise UsageError(
            f"actions={actions!r} is not allowed: expected different numbers of {game}'s actions, of {allowed}."
        )
    if options.full_action_set:
        raise UsageError(f"actions={actions!r} and full_action_set=True are two action sets: give one.")


class AtariVecEnv:
    """E games in one envpool; see `wmjax.envs.VecEnv`. Actions are int32 [E].

    Attributes:
        spec: EnvSpec; obs_shape is (height - crop, width, channels * stack).
        options: AtariOptions as used, defaults filled in.
    """

    def __init__(self, env_id: str, seeds: list[int], options: AtariOptions):
        self._env_id, self._num_envs, self._seeds, self.options = env_id, len(seeds), seeds, options
        made = options if options.actions else options[:-1]  # so that snapshots without the option stay valid
        self._identity = identity_of(env_id, seeds, tuple(made))
        self._whole_history = options.life_loss or options.sticky > 0
        self._rows = np.arange(len(seeds), dtype=np.int32)
        self._pool = self._make_pool()
        count = int(self._pool.action_spec().num_values)
        full = full_set(env_id.removesuffix("-v5"))
        self._numbers = places(options.actions, full) if options.actions else np.arange(count, dtype=np.int32)
        height, width = options.size
        shape = (height - options.crop, width, (3 if options.colour else 1) * options.stack)
        action = ActionSpec(len(self._numbers), True, 0, len(self._numbers) - 1)
        self.spec = EnvSpec(jax.ShapeDtypeStruct(shape, np.uint8), action, options.action_repeat, options.episode_steps)

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        self._remember(np.full(self._num_envs, BEGIN, np.int32))
        return self._arrive(np.zeros(self._num_envs, np.int32), self._pool.reset(self._rows))

    def step(self, action: np.ndarray) -> Step:
        """Takes one decision, int32 [E], in every row that goes on; begins an episode in the others."""
        action = check_action(action, self._num_envs, self.spec.action)
        check_begun(bool(self._history), "step")
        begins = self._is_last & (not self._whole_history)  # replayed as a reset; lost lives go on by a step alone
        self._remember(np.where(begins, BEGIN, action).astype(np.int32))
        # A row that had ended begins by itself.
        return self._arrive(action, self._pool.step(self._numbers[action], self._rows))

    def close(self) -> None:
        """Drops the pool; its threads end with it."""
        self._pool = None

    def snapshot(self) -> dict[str, Any]:
        """Returns what a replay needs.

        identity: int, a checksum of everything `make` was given; skipped: int32 [E], games begun before `history`,
        int8 [longest, E]: actions and resets (-1), aligned at the end; length: int32 [E] of each row's.
        """
        check_begun(bool(self._history), "snapshot")
        history = np.array(self._history, np.int8)[len(self._history) - int(self._length.max()) :]
        skipped, length = self._skipped.copy(), self._length.copy()
        return {"identity": self._identity, "skipped": skipped, "length": length, "history": history}

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Replays a snapshot in a new pool; returns the Step that was current when it was taken."""
        check_identity(snapshot, self._identity)
        self._pool = self._make_pool()
        history = np.asarray(snapshot["history"]).astype(np.int32)
        length = np.asarray(snapshot["length"])
        skipped = np.asarray(snapshot["skipped"])
        for done in range(int(skipped.max())):
            self._pool.reset(np.flatnonzero(skipped > done).astype(np.int32))
        self._skipped, self._length = skipped.copy(), length.copy()
        self._history = list(history)
        newest: list[Any] = [None] * self._num_envs  # each row's timestep and its index there
        for back in range(len(history), 0, -1):
            events, playing = history[-back], length >= back
            for starts, does in ((True, self._pool.reset), (False, self._pool.step)):
                rows = np.flatnonzero(playing & ((events == BEGIN) == starts)).astype(np.int32)
                if not len(rows):
                    continue
                timestep = does(rows) if starts else does(self._numbers[events[rows]], rows)
                self._note_lives(timestep)
                for index, row in enumerate(timestep.observation.env_id):
                    newest[row] = (timestep, index)
        rows = [[x[index] for x in _fields(timestep)] for timestep, index in newest]
        return self._deliver(history[-1], _Arrival(*(np.stack(column) for column in zip(*rows, strict=True))))

    def _make_pool(self) -> Any:
        """Makes an envpool whose next reset begins the first episode of every row, and forgets the history."""
        envpool = gl.import_envpool()
        self._skipped = np.zeros(self._num_envs, np.int32)
        self._length = np.zeros(self._num_envs, np.int32)  # of each row's part of the history, its newest end
        self._history = []  # of int32 [E], one for every call
        self._is_last = np.zeros(self._num_envs, bool)
        self._lives = self._lives_before = np.zeros(self._num_envs, np.int32)
        options = self.options
        return envpool.make_dm(
            self._env_id,
            num_envs=self._num_envs,
            seed=self._seeds,
            img_height=options.size[0],
            img_width=options.size[1],
            gray_scale=not options.colour,
            stack_num=options.stack,
            frame_skip=options.action_repeat,
            noop_max=options.noops,
            use_fire_reset=options.fire_reset,
            full_action_space=options.full_action_set or options.actions is not None,
            repeat_action_probability=float(options.sticky),
            episodic_life=options.life_loss,
            max_episode_steps=options.episode_steps,
        )

    def _remember(self, events: np.ndarray) -> None:
        """Adds one event of every row; a game that begins makes its row's past superfluous."""
        starts = events == BEGIN
        self._history.append(events)
        self._length += 1
        if starts.any() and not self._whole_history:
            self._skipped[starts] += (self._length[starts] > 1).astype(np.int32)
            self._length[starts] = 1
            self._history = self._history[len(self._history) - int(self._length.max()) :]

    def _arrive(self, action: np.ndarray, timestep: Any) -> Step:
        """The Step of a whole pool's dm_env timestep, whose rows come in any order."""
        self._note_lives(timestep)
        arrival = _Arrival(*_fields(timestep))
        order = timestep.observation.env_id
        if not np.array_equal(order, self._rows):
            arrival = _Arrival(*(x[np.argsort(order)] for x in arrival))
        return self._deliver(action, arrival)

    def _note_lives(self, timestep: Any) -> None:
        """Keeps the lives of some rows, and those before: only they tell a lost life from the time limit."""
        rows = timestep.observation.env_id
        self._lives_before, self._lives = self._lives.copy(), self._lives.copy()
        self._lives_before[rows], self._lives[rows] = self._lives[rows], timestep.observation.lives

    def _deliver(self, action: np.ndarray, arrival: "_Arrival") -> Step:
        is_first = arrival.step_type == 0
        self._is_last = arrival.step_type == LAST
        died = arrival.terminated | (self.options.life_loss & (self._lives < self._lives_before))
        shown = arrival.obs[:, :, : self.spec.obs_shape[0]]
        rows, channels, height, width = shown.shape
        if channels == 1:
            obs = shown.reshape(rows, height, width, 1)
        else:
            obs = np.ascontiguousarray(np.moveaxis(shown, 1, -1))
        return Step(
            prev_action=np.where(is_first, 0, action).astype(np.int32),
            obs=obs,
            reward=np.where(is_first, 0.0, arrival.reward).astype(np.float32),
            discount=np.where(self._is_last & died, 0.0, 1.0).astype(np.float32),
            is_first=is_first,
            is_last=self._is_last.copy(),
        )


class _Arrival(NamedTuple):
    """One row each: what is used of a dm_env timestep."""

    obs: np.ndarray  # uint8 [rows, channels, height, width]
    reward: np.ndarray
    terminated: np.ndarray  # bool
    step_type: np.ndarray


def _fields(timestep: Any) -> tuple[np.ndarray, ...]:
    seen = timestep.observation
    return seen.obs, timestep.reward, seen.terminated.astype(bool), timestep.step_type
