"""Puts a user's own gymnasium or dm_env environments behind the door `wmjax.envs.VecEnv`.

    env = wmjax.envs.adapt(lambda seed: MyEnv(seed), num_envs=4, seed=0)

The rows run one after the other in this process. What the two kinds of environments differ in: `wmjax.envs.interfaces`.

What is asked of an environment: its actions are one continuous vector or one integer; it shows an image, uint8
[X, Y, C] or [X, Y], as its observation, under a key of its observation, or through `render`; all rows have the same
actions and images. `adapt` checks this: it makes all environments, begins an episode in each, takes one decision in the
first of them twice, from the same seed, and closes all. Those that are played are made afresh.

Every episode has a seed of its own, made of the row's seed and the episode's number. A gymnasium environment gets it at
`reset`; one whose `reset` takes no seed, and every dm_env one, is made anew by `make_env(seed)` for each episode. So
`restore` replays only the present episode. If that shows another image than before, the environment is no function of
seed and actions, and its row begins a new episode. One that has `get_state() -> bytes` and `set_state(bytes)` is not
replayed: it is reset by the episode's seed, and its state is set. `adapt` tries that, too.

An episode that failed in another process (`wmjax/envs/workers.py`) is cut: its row shows the last observation again, at
the end of an episode. A snapshot holds that observation, and nothing of such an episode is played again.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax import console
from wmjax.envs import interfaces, snapshots
from wmjax.envs.check import check_action, check_begun, check_name
from wmjax.envs.seeds import row_seeds
from wmjax.envs.views import View, check_view, one_line, read_image, read_vector
from wmjax.types import Array, EnvSpec, Step, UsageError, image_of


class _Arrival(NamedTuple):
    """What one row arrived at: its observation as of `Step`, reward, discount (0 or 1), whether the episode ended."""

    obs: Any
    reward: float
    discount: float
    is_last: bool


def adapt(
    make_env: Callable[[int], Any],
    num_envs: int,
    seed: int,
    *,
    purpose: str = "train",
    **view: Any,
) -> "AdaptedVecEnv":
    """Makes a VecEnv of `num_envs` environments of the user's own.

    Args:
        make_env: makes one environment from an integer seed. A gymnasium one is given one at every reset too.
        num_envs: rows E, 1 to 1024.
        seed, purpose: as of `wmjax.envs.make`; every row gets a seed of its own, made of both.
        view: fields of View, such as render=function(environment), action_repeat or size.

    Raises:
        UsageError: an environment of neither kind, or one that is not as asked above.
        NonFiniteError: a first reward is a NaN or an infinity.
    """
    for name in view:
        check_name("option of adapt", name, View._fields)
    return AdaptedVecEnv(make_env, row_seeds(seed, num_envs, purpose), View(**view))


class AdaptedVecEnv:
    """E environments of a user's own, one after the other; see `wmjax.envs.VecEnv`. Attributes: spec, an EnvSpec;
    has_states, whether `restore` sets their states.

    Actions of `spec` are in [-1, 1] and are stretched to the environment's own bounds where it has bounds.
    """

    def __init__(self, make_env: Callable[[int], Any], seeds: list[int], view: View) -> None:
        check_view(view)
        self._make_env, self._num_envs, self._seeds, self._view = make_env, len(seeds), seeds, view
        self._remade = False  # whether every episode is another environment
        self.has_states = False  # whether environments give their states and go on from them
        self._make_rows()
        tried = list(self._envs)
        try:
            self._try_rows()
            tried += self._envs
        finally:
            self.close()
        self._make_rows()  # trying began episodes: start afresh
        cores = {id(getattr(env, "unwrapped", env)) for env in [*tried, *self._envs]}
        if len(cores) < len(seeds) + len({id(env) for env in tried}):
            self.close()
            raise UsageError("make_env returned one object twice: it must make a new environment at every call.")

    def reset(self) -> Step:
        """Begins a new episode in every row."""
        return self._advance(self._zeros(), np.ones(self._num_envs, bool))

    def step(self, action: Array) -> Step:
        """Takes one decision in every row that goes on; begins an episode in the others."""
        check_begun(bool(self._episodes.any()), "step")
        return self._advance(check_action(action, self._num_envs, self.spec.action), self._step.is_last)

    def close(self) -> None:
        """Closes every environment that has a `close`."""
        for env in self._envs:
            _close(env)

    def snapshot(self) -> dict[str, Any]:
        """Returns what a replay of the present episodes needs.

        seeds, episodes, decisions: int [E], of the rows, episodes begun, decisions taken in the present one; actions:
        [max(decisions), E, ...], aligned at the end; images: uint32 [E], a checksum of what each row shows; seen: that,
        as `Step.obs`; cut: bool [E], rows whose episode was cut; failures: int [E], of the workers that each row was
        the first of; env_states: uint8 [longest, E], the environments' own, aligned at the end; state_bytes: int [E],
        0 for a row that is replayed; elapsed: int [E], environment steps; step_<field>: of the present Step.
        """
        self._check_whole()
        check_begun(bool(self._episodes.any()), "snapshot")
        none = self._zeros()[None][:0]
        has_state = self.has_states & ~self._cut
        states = [interfaces.get_state(env) if has else b"" for env, has in zip(self._envs, has_state, strict=True)]
        longest = max(map(len, states))
        return {
            "seeds": np.array(self._seeds),
            "episodes": self._episodes.copy(),
            "decisions": self._decisions.copy(),
            "actions": np.concatenate([none, *(action[None] for action in self._actions)]),
            "images": np.array([_checksum(obs) for obs in self._shown], np.uint32),
            "seen": jax.tree.map(lambda *xs: np.stack(xs), *self._shown),
            "cut": self._cut.copy(),
            "failures": self._failures.copy(),
            "env_states": np.stack([np.frombuffer(x.rjust(longest, b"\0"), np.uint8) for x in states], axis=1),
            "state_bytes": np.array(list(map(len, states))),
            "elapsed": self._elapsed.copy(),
            **snapshots.fields_of(self._step),
        }

    def restore(self, snapshot: dict[str, Any]) -> Step:
        """Makes all environments again, sets or replays them; rows that then show something else begin an episode."""
        actions = np.asarray(snapshot["actions"])
        if not np.array_equal(snapshot.get("seeds", []), self._seeds) or actions.shape[1:] != self._zeros().shape:
            raise UsageError("this snapshot is of another environment: num_envs, seed or the actions differ.")
        self.close()
        self._make_rows()
        step = self.stand(snapshot)
        rows = [jax.tree.map(lambda x, row=row: x[row], step) for row in range(self._num_envs)]
        sizes = np.asarray(snapshot.get("state_bytes", np.zeros(self._num_envs, np.int64)))
        has_state = self.has_states & (sizes > 0)
        for row in np.flatnonzero(has_state).tolist():
            rows[row] = self._set_state(row, snapshot)
        decisions = np.where(self._cut | has_state, 0, snapshot["decisions"])
        for back in range(len(actions), 0, -1):
            for row in np.flatnonzero(decisions >= back).tolist():
                arrival = self._decide(row, actions[-back][row])
                rows[row] = self._record(row, arrival, actions[-back][row], is_first=False)
        self._actions = list(actions)
        for row, image in enumerate(np.asarray(snapshot["images"])):
            if _checksum(self._shown[row]) != image:
                console.warn(f"warning: {self._not_reproducible(row)}: the present episode of row {row} is cut")
                rows[row] = rows[row].replace(is_last=np.bool_(True))
        return self._show(rows)

    def stand(self, snapshot: dict[str, Any]) -> Step:
        """Begins the present episodes of rows that were only just made; those that were cut stand there again.

        snapshot: its episodes, cut, failures and, where rows were cut, what was seen and the last of its actions. None
        was cut in one without these, as they were once.
        """
        none = np.zeros(self._num_envs, np.int64)
        self._cut = np.array(snapshot.get("cut", none), bool)
        self._failures = np.array(snapshot.get("failures", none))
        self._episodes, self._decisions = np.asarray(snapshot["episodes"]) - ~self._cut, self._cut.astype(np.int64)
        for row in np.flatnonzero(self._cut).tolist():
            self._shown[row] = jax.tree.map(lambda x, row=row: np.asarray(x[row]), snapshot["seen"])
        action = [self._zeros(), *(snapshot["actions"] if self._cut.any() else ())][-1]
        return self._advance(np.asarray(action), ~self._cut)

    def _make_rows(self) -> None:
        """Makes the environments and forgets what they did."""
        self._envs = [self._make_env(seed) for seed in self._seeds]
        self._episodes = np.zeros(self._num_envs, np.int64)
        self._decisions = np.zeros(self._num_envs, np.int64)
        self._elapsed = np.zeros(self._num_envs, np.int64)  # environment steps of the present episode
        self._cut = np.zeros(self._num_envs, bool)  # whether a row stands where its episode was cut
        self._failures = np.zeros(self._num_envs, np.int64)
        self._actions = []  # the last max(decisions) arrays [E, ...]
        self._shown: list[Any] = [None] * self._num_envs  # the observation of each row
        self._stacks: list[list[np.ndarray]] = [[] for _ in self._envs]  # the newest images of each row
        self._step: Step | None = None  # what all rows showed last
        self._moving: int | None = None  # the row that is stepped now, or that raised

    def _try_rows(self) -> None:
        """Sets `spec` after an episode's beginning in every row and one decision in the first, taken twice."""
        (action, low, high), *others = map(interfaces.read_actions, self._envs)
        for row, other in enumerate(others, 1):
            if other.spec != action or not (np.array_equal(other.low, low) and np.array_equal(other.high, high)):
                raise UsageError(
                    f"row {row} has other actions than row 0: {one_line(interfaces.action_space(self._envs[row]))}."
                )
        self._low, self._high = low, high
        self._remade = not interfaces.takes_seed(self._envs[0])
        shown = [self._begin(row).obs for row in range(self._num_envs)]
        for row, obs in enumerate(shown):
            _check_shapes(row, obs, shown[0])
        env_limit = getattr(getattr(self._envs[0], "spec", None), "max_episode_steps", None)
        limits = [limit for limit in (env_limit, self._view.episode_steps) if isinstance(limit, int)]
        limit = -(-min(limits) // self._view.action_repeat) if limits else None
        obs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shown[0])
        self.spec = EnvSpec(obs, action, self._view.action_repeat, limit)
        state, stack = interfaces.get_state(self._envs[0]), self._stacks[0]
        first = self._decide(0, self._zeros()[0]).obs
        _check_shapes(0, first, shown[0])
        if state:
            self._envs[0].set_state(state)
            self._stacks[0], self._elapsed[0] = stack, 0
            self.has_states = _checksum(self._decide(0, self._zeros()[0]).obs) == _checksum(first)
            if self.has_states:
                return
            console.warn(f"warning: {type(self._envs[0]).__name__}.set_state does not bring its state back: not used")
        self._episodes[0] -= 1
        self._begin(0)
        if _checksum(self._decide(0, self._zeros()[0]).obs) != _checksum(first):
            console.warn(f"warning: {self._not_reproducible(0)}: a resumed run cuts its present episodes")

    def _not_reproducible(self, row: int) -> str:
        """The beginning of the warning that an episode cannot be replayed."""
        return f"{type(self._envs[row]).__name__} is no function of its seed and its actions"

    def _check_whole(self) -> None:
        """Raises UsageError where an environment raised in a decision: other rows have moved, some have not."""
        if self._moving is not None:
            raise UsageError(
                f"the environment of row {self._moving} raised an error in the middle of a decision, so that the rows "
                "no longer belong together: restore() a snapshot, or adapt() anew."
            )

    def _zeros(self) -> np.ndarray:
        """Returns the action of a row that only just began, for every row."""
        if self.spec.action.discrete:
            return np.zeros(self._num_envs, np.int32)
        return np.zeros((self._num_envs, self.spec.action.size), np.float32)

    def _advance(self, action: np.ndarray, is_first: np.ndarray) -> Step:
        """Begins an episode in the rows where bool [E] `is_first` is set, takes a decision in the others."""
        self._check_whole()
        rows = []
        for row, first in enumerate(np.array(is_first)):
            self._moving = row
            if self._cut[row] and not first:
                arrival = _Arrival(self._shown[row], 0.0, 1.0, True)
            else:
                arrival = self._begin(row) if first else self._decide(row, action[row])
            _check_shapes(row, arrival.obs, self.spec.obs)
            rows.append(self._record(row, arrival, action[row], is_first=bool(first)))
        self._moving = None
        self._actions = [*self._actions, action][len(self._actions) + 1 - int(self._decisions.max()) :]
        return self._show(rows)

    def _show(self, rows: list[Step]) -> Step:
        """Keeps and returns the Step of all rows."""
        self._step = jax.tree.map(lambda *xs: np.stack(xs), *rows)
        return jax.tree.map(np.copy, self._step)

    def _set_state(self, row: int, snapshot: dict[str, Any]) -> Step:
        """Brings one row from the beginning of its episode to where it stood: its Step there."""
        size = int(snapshot["state_bytes"][row])
        self._envs[row].set_state(np.asarray(snapshot["env_states"])[-size:, row].tobytes())
        self._decisions[row], self._elapsed[row] = snapshot["decisions"][row], snapshot["elapsed"][row]
        step = jax.tree.map(lambda x: x[row], snapshots.step_of(snapshot, snapshot["seen"]))
        self._shown[row] = step.obs
        self._stacks[row] = np.split(np.asarray(image_of(step.obs)), self._view.stack, axis=-1)
        return step

    def _record(self, row: int, arrival: _Arrival, action: np.ndarray, *, is_first: bool) -> Step:
        """The arrival as a Step without the axis of rows."""
        self._shown[row] = arrival.obs
        action = self._zeros()[row] if is_first else np.asarray(action)
        numbers = (np.float32(arrival.reward), np.float32(arrival.discount))
        return Step(action, arrival.obs, *numbers, np.bool_(is_first), np.bool_(arrival.is_last))

    def _begin(self, row: int) -> _Arrival:
        """Begins an episode in one row."""
        self._episodes[row] += 1
        self._decisions[row] = self._elapsed[row] = 0
        self._cut[row] = False
        seed = _episode_seed(self._seeds[row], int(self._episodes[row]))
        if self._remade:
            _close(self._envs[row])
            self._envs[row] = self._make_env(seed)
        obs = interfaces.reset(self._envs[row], None if self._remade else seed)
        return _Arrival(self._see(row, obs, is_first=True), 0.0, 1.0, False)

    def _decide(self, row: int, action: np.ndarray) -> _Arrival:
        """Takes one decision in one row: so many steps of the environment, or until its episode ends."""
        env = self._envs[row]
        if self.spec.action.discrete:
            control: Any = int(self._low + action)
        else:
            control = self._low + (action + 1) / 2 * (self._high - self._low)
            control = np.clip(control, self._low, self._high).astype(self._low.dtype)
        total, limit = 0.0, self._view.episode_steps or np.inf
        for _ in range(self._view.action_repeat):
            obs, reward, terminated, last = interfaces.step(env, control, row)
            total += reward
            self._elapsed[row] += 1
            last = last or self._elapsed[row] >= limit
            if last:
                break
        self._decisions[row] += 1
        return _Arrival(self._see(row, obs, is_first=False), total, 0.0 if terminated else 1.0, bool(last))

    def _see(self, row: int, obs: Any, *, is_first: bool) -> Any:
        """Returns what a row shows, as of `Step`, of what its environment observes."""
        env, view = self._envs[row], self._view
        image = read_image(env, obs, view)
        self._stacks[row] = [image] * view.stack if is_first else [*self._stacks[row][1:], image]
        _check_shapes(row, image, self._stacks[row][0])
        stacked = np.concatenate(self._stacks[row], axis=-1)
        return dict(image=stacked, vector=read_vector(env, obs, view.vector_keys)) if view.vector_keys else stacked


def _episode_seed(seed: int, episode: int) -> int:
    """The seed of a row's n-th episode, from 1: the row's own of the first."""
    return seed if episode == 1 else int(np.random.SeedSequence((seed, episode)).generate_state(1)[0] >> 1)


def _close(env: Any) -> None:
    getattr(env, "close", lambda: None)()


def _check_shapes(row: int, obs: Any, expected: Any) -> None:
    """Raises UsageError where the image or the vector of an observation has another shape than an earlier one."""
    for shown, first in zip(jax.tree.leaves(obs), jax.tree.leaves(expected), strict=True):
        if shown.shape != first.shape:
            what = "an image" if len(first.shape) == 3 else "a vector"
            raise UsageError(
                f"row {row} shows {what} of {shown.shape}, row 0 began with {first.shape}: all must be alike."
            )


def _checksum(obs: Any) -> int:
    """Of an observation as of `Step`."""
    return zlib.crc32(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(obs)))
