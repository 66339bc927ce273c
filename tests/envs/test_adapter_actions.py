"""The action spaces that the adapter understands, and those that it refuses."""

import numpy as np
import pytest
from dm_env import specs
from numpy import inf

from tests.envs.stubs import DmStub, GymStub, refused
from tests.gym_walk import Box, Discrete, Space
from wmjax import envs


class Buttons(Discrete):
    """A user's own kind of a Discrete."""


class MultiBinary(Space):
    pass


class MultiDiscrete(Space):
    pass


class Tuple(Space):
    pass


class Dict(Space):
    pass


class Text(Space):
    pass


@pytest.mark.parametrize(
    ("space", "decision", "arrives"),
    [
        (Discrete(n=3), 2, 2),
        (Discrete(n=3, start=-1), 2, 1),
        (Buttons(n=3), 1, 1),
        (Box([-1, 0], [1, 8]), [0.5, 0.5], [0.5, 6]),
        (Box([-2.0], [2.0], np.float64), [0.25], [0.5]),
        (Box([0.1], [0.7]), [1], [0.7]),
        (Box([-inf, 0], [inf, 8]), [0.5, -1], [0.5, 0]),
        (Box([-1e10], [1e10]), [-0.5], [-0.5]),
        (specs.DiscreteArray(3), 2, 2),
        (specs.BoundedArray((2,), np.float32, [-1, 0], [1, 8]), [0.5, 0.5], [0.5, 6]),
        (specs.Array((2,), np.float64), [0.5, 0.25], [0.5, 0.25]),
    ],
)
def test_action_spaces_that_are_understood(space, decision, arrives):
    made = []

    def make_env(seed):
        made.append(GymStub(action_space=space) if isinstance(space, Space) else DmStub(space))
        return made[-1]

    env = envs.adapt(make_env, 1, 0)
    env.reset()
    env.step(np.array([decision]))
    (action,) = made[-1].actions
    np.testing.assert_array_equal(action, np.asarray(arrives, getattr(space, "dtype", int)))
    if not env.spec.action.discrete:
        assert action.dtype == space.dtype and action.shape == space.shape
        assert np.all(action >= getattr(space, "low", action)) and np.all(action <= getattr(space, "high", action))


@pytest.mark.parametrize(
    ("space", "named"),
    [
        (MultiBinary(n=4), r"MultiBinary\(\.\.\.\).*Discrete.*Box"),
        (MultiBinary(n=(2, 2)), "MultiBinary"),
        (MultiDiscrete(nvec=[2, 3]), "MultiDiscrete"),
        (Tuple(spaces=()), "Tuple"),
        (Dict(spaces={}), "Dict"),
        (Text(max_length=3), "Text"),
        (Box([0, -1], [inf, 1]), "index 0.*0.*inf.*wrap"),
        (Box([-1, 5], [1, inf]), "index 1.*5.*inf"),
        (Box([-inf], [-3]), "index 0.*-inf.*-3"),
        (Box([-1e10], [1]), "index 0"),
        (Box([[0.0]], [[1.0]]), r"\(1, 1\).*one vector of floats"),
        (Box(0.0, 1.0), r"\(\), float32.*one vector of floats"),
        (Box([0], [255], np.uint8), "uint8.*floats"),
        (specs.BoundedArray((2,), np.int32, 0, 4), "int32.*floats"),
        (specs.BoundedArray((1,), np.float32, 0, inf), "index 0"),
        (specs.StringArray(()), "StringArray"),
        ({"arm": specs.DiscreteArray(2)}, "arm.*DiscreteArray.*one integer"),
        ((specs.DiscreteArray(2),), r"\(DiscreteArray.*one integer"),
    ],
)
def test_action_spaces_that_are_refused(space, named):
    make = GymStub if isinstance(space, Space) else DmStub
    refused(named, lambda seed: make(action_space=space) if make is GymStub else make(space))
