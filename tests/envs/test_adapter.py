"""The adapter, on small environments written after gymnasium's and dm_env's interfaces."""

import dm_env
import jax
import numpy as np
import pytest

from tests.envs.stubs import DmStub, GymStub, refused
from tests.gym_walk import Box, Discrete, GridWalk, GymWalk, NoisyVector, StateWalk, VectorWalk
from tests.steps import assert_equal
from wmjax import envs
from wmjax.envs import snapshots
from wmjax.envs.seeds import row_seeds
from wmjax.types import NonFiniteError, UsageError


class DmChoice:
    """dm_env's way: three discrete actions, action 2 terminates, a time limit after 3 steps; grey pixels in a dict."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def action_spec(self):
        return dm_env.specs.DiscreteArray(3)

    def reset(self):
        self.elapsed = 0
        return dm_env.restart(self.observe())

    def step(self, action):
        self.elapsed += 1
        if action == 2:
            return dm_env.termination(5.0, self.observe())
        make = dm_env.truncation if self.elapsed == 3 else dm_env.transition
        return make(float(action), self.observe())

    def observe(self):
        return {"pixels": self.rng.integers(0, 255, (6, 6), dtype=np.uint8)}


class Seedless(GymWalk):
    """Its reset takes no seed: what it draws goes on from one episode to the next."""

    def __init__(self, seed):
        super().__init__(seed)
        self.rng = np.random.default_rng(seed)

    def reset(self):
        return super().reset()


def test_gymnasium_episode_and_bounds():
    made = []
    env = envs.adapt(lambda seed: made.append(GymWalk(seed)) or made[-1], 2, 3)
    assert env.spec.obs_shape == (4, 5, 3) and env.spec.action == (2, False, -1.0, 1.0)
    first = env.reset()
    np.testing.assert_array_equal(first.is_first, [True, True])
    for index in range(4):
        step = env.step(np.float32([[-1, -1], [-0.8, 2]]))
        assert step.reward.dtype == np.float32 and step.is_last.all() == (index == 3)
        np.testing.assert_array_equal(step.discount, [1, 1])
        np.testing.assert_array_equal(step.prev_action, np.float32([[-1, -1], [-0.8, 1]]))
    np.testing.assert_allclose(made[-2].actions[0], [0, -1])
    np.testing.assert_allclose(made[-1].actions[0], [1, 3], rtol=1e-6)
    step = env.step(np.ones((2, 2)))
    assert np.any(step.obs != first.obs), "every episode has a seed of its own"
    assert step.is_first.all() and not step.reward.any() and not step.prev_action.any()
    with pytest.raises(NonFiniteError):
        env.step(np.full((2, 2), np.nan))


def test_true_termination_of_one_row():
    env = envs.adapt(DmChoice, 2, 0)
    assert env.spec.obs_shape == (6, 6, 1) and env.spec.action == (3, True, 0, 2)
    env.reset()
    step = env.step(np.array([1, 2]))
    np.testing.assert_array_equal(step.discount, [1, 0])
    np.testing.assert_array_equal(step.is_last, [False, True])
    np.testing.assert_array_equal(step.reward, [1, 5])
    step = env.step(np.array([1, 2]))
    np.testing.assert_array_equal(step.is_first, [False, True])
    np.testing.assert_array_equal(step.prev_action, [1, 0])
    assert step.prev_action.dtype == np.int32
    step = env.step(np.array([0, 0]))  # the first row's third step: a time limit
    np.testing.assert_array_equal(step.is_last, [True, False])
    np.testing.assert_array_equal(step.discount, [1, 1])


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


def test_environments_are_seen_and_decided_in_as_asked():
    """Three steps a decision, a time limit of four, grey images of another size, rewards summed."""

    class Wide(GymStub):
        def step(self, action):
            image = np.full((6, 12, 3), 10 * len(self.actions), np.uint8)
            self.actions.append(action)
            return {"pixels": image * 0, "camera": image}, 1.0, False, False, {}

        def reset(self, *, seed=None):
            return {"camera": np.zeros((6, 12, 3), np.uint8)}, {}

    view = dict(action_repeat=3, episode_steps=4, size=8, grey=True, image_key="camera")
    env = envs.adapt(lambda seed: Wide(), 1, 0, **view)
    assert env.spec.obs_shape == (8, 8, 1) and env.spec.action_repeat == 3 and env.spec.time_limit == 2
    env.reset()
    steps = [env.step(np.array([0])) for _ in range(3)]
    assert [float(x.reward[0]) for x in steps] == [3, 1, 0] and [bool(x.is_last[0]) for x in steps] == [0, 1, 0]
    assert [int(x.obs.max()) for x in steps] == [20, 30, 0] and (steps[1].discount == 1).all()


def test_stacks_hold_the_newest_images_of_an_episode():
    single, env = envs.adapt(GridWalk, 2, 0), envs.adapt(GridWalk, 2, 0, stack=3)
    assert env.spec.obs_shape == (8, 8, 9)
    seen, stacks = [single.reset()], [env.reset()]
    for action in np.random.default_rng(0).integers(0, 6, (30, 2)):
        seen, stacks = [*seen, single.step(action)], [*stacks, env.step(action)]
    began = np.zeros(2, int)
    for time, step in enumerate(stacks):
        began = np.where(step.is_first, time, began)
        for row in (0, 1):
            newest = [seen[max(time - back, began[row])].obs[row] for back in (2, 1, 0)]
            np.testing.assert_array_equal(step.obs[row], np.concatenate(newest, axis=-1))
    again = envs.adapt(GridWalk, 2, 0, stack=3)
    assert_equal(again.restore(env.snapshot()), stacks[-1])
    assert_equal(again.step(np.array([1, 2])), env.step(np.array([1, 2])))


def test_numbers_are_shown_beside_the_image():
    keys = dict(vector_keys=("drawn", "place"), stack=2)
    env, plain = envs.adapt(VectorWalk, 2, 0, **keys), envs.adapt(GymWalk, 2, 0, stack=2)
    assert {name: (x.shape, x.dtype) for name, x in env.spec.obs.items()} == dict(
        image=((4, 5, 6), np.uint8), vector=((3,), np.float32)
    )
    env.reset(), plain.reset()
    for decision in (1, 2):
        step, other = env.step(np.zeros((2, 2))), plain.step(np.zeros((2, 2)))
        np.testing.assert_array_equal(step.obs["image"], other.obs)
        np.testing.assert_allclose(step.obs["vector"], [[decision, 1, x / 10] for x in step.reward], rtol=1e-6)
    again = envs.adapt(VectorWalk, 2, 0, **keys).restore(env.snapshot())
    np.testing.assert_array_equal(again.obs["vector"], step.obs["vector"])
    np.testing.assert_array_equal(again.obs["image"], step.obs["image"])


def test_numbers_that_are_no_function_of_the_seed_are_told(capsys):
    envs.adapt(NoisyVector, 1, 0)
    assert not capsys.readouterr().err
    envs.adapt(NoisyVector, 1, 0, vector_keys=("place",))
    assert "NoisyVector is no function of its seed and its actions" in capsys.readouterr().err


class BadVector(VectorWalk):
    def image(self):
        growing = np.zeros(1 + self.elapsed)
        return super().image() | dict(nan=np.nan, name="red", growing=growing)


@pytest.mark.parametrize(
    ("make_env", "keys", "error", "named"),
    [
        (GymWalk, ("place",), UsageError, "GymWalk has no observation 'place'; its names: none"),
        (VectorWalk, ("plce",), UsageError, "VectorWalk has no observation 'plce'; its names: pixels, place, drawn"),
        (VectorWalk, "place", UsageError, "vector_keys='place'"),
        (VectorWalk, (1,), UsageError, r"vector_keys=\(1,\)"),
        (BadVector, ("nan",), NonFiniteError, "'nan' of BadVector is not finite"),
        (BadVector, ("name",), UsageError, "'name' of BadVector is .*expected numbers"),
        (BadVector, ("growing",), UsageError, r"row 0 shows a vector of \(2,\), row 0 began with \(1,\)"),
    ],
)
def test_vectors_that_are_refused(make_env, keys, error, named):
    with pytest.raises(error, match=named) as caught:
        envs.adapt(make_env, 1, 0, vector_keys=keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("view", "named"),
    [
        (dict(size=7), "size=7"),
        (dict(stack=0), "stack=0"),
        (dict(action_repeat=0), "action_repeat=0"),
        (dict(episode_steps=0), "episode_steps=0"),
        (dict(grey=1), "grey=1"),
        (dict(image_key=3), "image_key=3"),
        (dict(gray=True), "unknown option of adapt 'gray'. Did you mean grey"),
        (dict(image_key="camera"), "expected an image"),
    ],
)
def test_views_that_are_refused(view, named):
    with pytest.raises(UsageError, match=named):
        envs.adapt(DmChoice, 1, 0, **view)


inf, specs = np.inf, dm_env.specs
MADE = (GymStub(), GymStub())


def row_of(seed):
    """Which of the two rows of `refused` is seeded so."""
    return row_seeds(0, 2).index(seed)


class OldReset(GymStub):
    def reset(self):
        return np.zeros(self.shape, np.uint8)


class OldWrapper(GymStub):
    def reset(self, **kwargs):
        return OldReset().reset(**kwargs)


class ObservationOnly(GymStub):
    def reset(self, *, seed=None):
        return np.zeros((2, 6, 3), np.uint8)  # two halves, not a pair


class OldStep(GymStub):
    def step(self, action):
        return super().step(action)[:3] + ({},)


@pytest.mark.parametrize(
    ("make_env", "named"),
    [
        (OldReset, "OldReset.reset.*returned ndarray; gym before 0.26"),
        (OldWrapper, "OldWrapper.reset.*returned ndarray; gym before 0.26"),
        (ObservationOnly, r"reset\(\).*observation, info.*ndarray"),
        (OldStep, r"step\(\) returned 4 values.*five"),
        (lambda seed: GymStub(image=(3, 64, 64)), r"\(3, 64, 64\).*channels.*last"),
        (lambda seed: GymStub(image=(1, 84, 96)), r"\(1, 84, 96\)"),
        (lambda seed: GymStub(image=(4, 84, 84)), r"\(4, 84, 84\)"),
        (lambda seed: GymStub(image=(3, 16, 16)), r"\(3, 16, 16\)"),
        (lambda seed: GymStub(image=(6, 6 + row_of(seed), 3)), r"row 1.*\(6, 7, 3\).*\(6, 6, 3\)"),
        (lambda seed: GymStub(action_space=Discrete(n=2 + row_of(seed))), "row 1.*actions"),
        (lambda seed: GymStub(action_space=Box([0], [1 + row_of(seed)])), "row 1.*actions"),
        (lambda seed: MADE[0], "one object twice"),
        (lambda seed: MADE[row_of(seed)], "one object twice"),  # by the second row, and again when rows are made anew
        (lambda seed: wrapped(MADE[0]), "one object twice"),
        (lambda seed: object(), "neither"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_adapt(make_env, named):
    refused(named, make_env)


def wrapped(inner):
    env = GymStub()
    env.unwrapped = inner
    return env


@pytest.mark.parametrize("image", [(4, 64, 3), (64, 64), (64, 64, 4), (64, 64, 12), (84, 84, 20)])
def test_channels_last_of_any_number_pass(image):
    assert envs.adapt(lambda seed: GymStub(image=image), 1, 0).reset().obs.shape[1:3] == image[:2]


@pytest.mark.parametrize(
    ("arrival", "error", "named"),
    [
        ((np.nan, 1.0), NonFiniteError, "reward.*row 0"),
        ((-inf, 1.0), NonFiniteError, "reward.*row 0"),
        ((1e39, 1.0), NonFiniteError, "reward.*row 0"),
        ((1.0, np.nan), NonFiniteError, "discount.*row 0"),
        ((None, 1.0), UsageError, "reward None.*row 0"),
        ((np.zeros(2), 1.0), UsageError, "reward.*row 0"),
        ((1.0, None), UsageError, "discount None.*row 0"),
    ],
)
def test_rewards_and_discounts_are_finite_numbers(arrival, error, named):
    refused(named, lambda seed: DmStub(specs.DiscreteArray(2), arrival), error=error)


class Failing(GymWalk):
    """Raises at action 10 of 10."""

    def step(self, action):
        if action[0] > 9.9:
            raise RuntimeError("the simulator crashed")
        return super().step(action)


def test_an_environment_that_raised_is_used_no_more_until_restored():
    env = envs.adapt(Failing, 3, 0)
    env.reset()
    good = np.zeros((3, 2))
    step = env.step(good)
    snapshot = env.snapshot()
    bad = np.zeros((3, 2))
    bad[1] = 1
    with pytest.raises(RuntimeError, match="crashed"):
        env.step(bad)
    for again in (env.reset, lambda: env.step(good), env.snapshot):
        with pytest.raises(UsageError, match=r"row 1.*raised.*restore"):
            again()
    fresh = envs.adapt(Failing, 3, 0)
    assert_equal(env.restore(snapshot), step)
    fresh.restore(snapshot)
    assert_equal(env.step(good), fresh.step(good))
    np.testing.assert_array_equal(env.snapshot()["actions"], fresh.snapshot()["actions"])


def test_an_image_that_changes_its_shape_is_refused():
    env = envs.adapt(lambda seed: GymStub(), 1, 0)
    env.reset()
    env._envs[0].shape = (6, 7, 3)
    with pytest.raises(UsageError, match=r"row 0.*\(6, 7, 3\).*\(6, 6, 3\)"):
        env.step(np.array([0]))


def test_what_was_looked_at_is_closed():
    made = []

    def make_env(seed):
        made.append(GymStub())
        return made[-1]

    envs.adapt(make_env, 2, 0)
    assert [each.closed for each in made] == [True, True, False, False]
    with pytest.raises(UsageError):
        envs.adapt(lambda seed: made.append(OldStep()) or made[-1], 2, 0)
    assert made[-1].closed


def test_render_function_and_refusals():
    class Symbolic(GymWalk):
        def image(self):
            return np.array([self.place])

    with pytest.raises(UsageError, match="pass render="):
        envs.adapt(Symbolic, 1, 0)
    env = envs.adapt(Symbolic, 1, 0, render=lambda each: np.full((8, 8), each.place, np.uint8))
    assert env.reset().obs.shape == (1, 8, 8, 1)
    with pytest.raises(UsageError, match="neither"):
        envs.adapt(lambda seed: object(), 1, 0)
    with pytest.raises(UsageError, match="before reset"):
        envs.adapt(DmChoice, 1, 0).step(np.array([0]))
    env = envs.adapt(DmChoice, 1, 0)
    env.reset()
    for action in (np.array([3]), np.array([0.0]), np.zeros((1, 1), int)):
        with pytest.raises(UsageError, match="action"):
            env.step(action)
