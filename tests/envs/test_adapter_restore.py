"""The adapter's snapshots: episodes are played again, environments with states are set, cut episodes are left."""

import jax
import numpy as np
import pytest

from tests.envs.stubs import DmChoice
from tests.gym_walk import GymWalk, StateWalk, VectorWalk
from tests.steps import assert_equal
from wmjax import envs
from wmjax.envs import snapshots
from wmjax.types import UsageError


class Seedless(GymWalk):
    """Its reset takes no seed: what it draws goes on from one episode to the next."""

    def __init__(self, seed):
        super().__init__(seed)
        self.rng = np.random.default_rng(seed)

    def reset(self):
        return super().reset()


@pytest.mark.parametrize("make_env", [GymWalk, DmChoice, Seedless])
def test_restore_is_exact(make_env, tmp_path):
    env = envs.adapt(make_env, 3, 1)
    rng = np.random.default_rng(0)
    shape = (20, 3) if env.spec.action.discrete else (20, 3, 2)
    actions = rng.integers(0, 3, shape) if env.spec.action.discrete else rng.uniform(-1, 1, shape)
    env.reset()
    for at, action in enumerate(actions[:11]):
        step = env.reset() if at == 6 else env.step(action)
    np.savez(tmp_path / "snapshot.npz", **env.snapshot())
    snapshot = dict(np.load(tmp_path / "snapshot.npz"))
    fresh = envs.adapt(make_env, 3, 1)
    assert_equal(fresh.restore(snapshot), step)
    future = [env.step(action) for action in actions[11:]]
    for action, expected in zip(actions[11:], future, strict=True):
        assert_equal(fresh.step(action), expected)
    assert_equal(env.restore(snapshot), step)  # backwards, in a used one
    with pytest.raises(UsageError, match="another environment"):
        envs.adapt(make_env, 3, 2).restore(snapshot)


class Drifting(GymWalk):
    """No function of its seed: it counts how often any of its kind was begun."""

    begun = 0

    def reset(self, *, seed=None):
        Drifting.begun += 1
        return super().reset(seed=seed)

    def image(self):
        return np.full((4, 5, 3), Drifting.begun, np.uint8)


def test_a_snapshot_holds_the_present_episode_alone():
    env = envs.adapt(GymWalk, 1, 0)
    env.reset()
    for _ in range(12):
        step = env.step(np.zeros((1, 2)))
    snapshot = env.snapshot()
    assert snapshot["episodes"] == 3 and snapshot["decisions"] == 2 and snapshot["actions"].shape == (2, 1, 2)
    assert_equal(envs.adapt(GymWalk, 1, 0).restore(snapshot), step)


def test_an_environment_that_is_no_function_of_its_seed_is_told_and_its_episode_cut(capsys):
    env = envs.adapt(Drifting, 2, 0)
    assert "Drifting is no function of its seed and its actions: a resumed run cuts" in capsys.readouterr().err
    env.reset()
    env.step(np.zeros((2, 2)))
    snapshot = env.snapshot()
    restored = env.restore(snapshot)
    assert restored.is_last.all() and "the present episode of row 1 is cut" in capsys.readouterr().err
    assert env.step(np.zeros((2, 2))).is_first.all()


class StateVector(StateWalk):
    """With numbers beside the image, and states of several lengths."""

    def image(self):
        return {"pixels": super().image(), "place": self.place}

    def get_state(self):
        return super().get_state() + bytes(self.elapsed)


@pytest.mark.parametrize(("make_env", "view"), [(StateWalk, {}), (StateVector, dict(vector_keys=("place",), stack=3))])
def test_an_environment_with_states_is_set_and_not_replayed(make_env, view, capsys):
    """Whatever its seed does; where it stood at its end; as a share; with a time limit."""
    view = view | dict(action_repeat=2, episode_steps=3)
    env = envs.adapt(make_env, 3, 0, **view)
    env.reset()
    for _ in range(5):
        step, snapshot = env.step(np.full((3, 2), -0.9)), env.snapshot()
        fresh = envs.adapt(make_env, 3, 0, **view)
        assert_equal(fresh.restore(snapshots.join([snapshots.rows_of(snapshot, row, 1) for row in range(3)])), step)
        assert [each.actions for each in fresh._envs] == [[]] * 3
        jax.tree.map(np.testing.assert_array_equal, fresh.snapshot(), snapshot)
        if not step.is_last.any():  # a new episode is no function of its seed
            assert_equal(fresh.step(np.ones((3, 2))), env.step(np.ones((3, 2))))
            env.restore(snapshot)
    assert not capsys.readouterr().err


class Forgetful(GymWalk):
    """Its state leaves out where it is."""

    def get_state(self):
        return b"walk"

    def set_state(self, state):
        assert state == b"walk"


class Observing(GymWalk):
    """What it calls its state is what it shows."""

    def get_state(self):
        return self.image()

    def set_state(self, place, speed):
        raise NotImplementedError


@pytest.mark.parametrize(("make_env", "told"), [(Forgetful, True), (Observing, False)])
def test_an_environment_whose_state_is_not_whole_is_replayed(make_env, told, capsys):
    env = envs.adapt(make_env, 2, 0)
    assert (f"{make_env.__name__}.set_state does not bring its state back" in capsys.readouterr().err) == told
    env.reset(), env.step(np.zeros((2, 2)))
    step = env.step(np.zeros((2, 2)))
    snapshot = env.snapshot()
    assert not snapshot["state_bytes"].any()
    fresh = envs.adapt(make_env, 2, 0)
    assert_equal(fresh.restore(snapshot), step)
    assert len(fresh._envs[0].actions) == 2


def test_a_cut_episode_is_not_played_again():
    """Also where its row is of a share, and where observations are dicts; snapshots without cuts restore too."""
    env = envs.adapt(VectorWalk, 2, 0, vector_keys=("place",))
    env.reset(), env.step(np.zeros((2, 2)))
    step = env.step(np.full((2, 2), 0.1))
    snapshot = env.snapshot()
    assert not snapshot["cut"].any() and not snapshot["failures"].any()
    older = {name: snapshot[name] for name in ("seeds", "episodes", "decisions", "actions", "images")}
    assert_equal(env.restore(older), step)
    cut = snapshot | dict(cut=np.array([True, False]), failures=np.array([3, 0]))
    restored = env.restore(snapshots.join([snapshots.rows_of(cut, row, 1) for row in (0, 1)]))
    assert env._envs[0].actions == [] and len(env._envs[1].actions) == 2
    reward, is_last = np.float32([0, step.reward[1]]), np.array([True, False])
    assert_equal(restored, step.replace(reward=reward, is_last=is_last))
    again = env.snapshot()
    assert again["failures"].tolist() == [3, 0] and again["cut"].tolist() == [True, False]
    np.testing.assert_array_equal(again["seen"]["vector"], step.obs["vector"])
    after = env.step(np.zeros((2, 2)))
    assert after.is_first.tolist() == [True, False] and not env.snapshot()["cut"].any()
    assert env.snapshot()["episodes"].tolist() == [2, 1]
