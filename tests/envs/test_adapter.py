"""The adapter, on small environments written after gymnasium's and dm_env's interfaces."""

import dm_env
import numpy as np
import pytest

from tests.envs.stubs import DmChoice, DmStub, GymStub, refused
from tests.gym_walk import Box, Discrete, GridWalk, GymWalk, NoisyVector, VectorWalk
from tests.steps import assert_equal
from wmjax import envs
from wmjax.envs.seeds import row_seeds
from wmjax.types import NonFiniteError, UsageError


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
