"""Environments in pure JAX behind the door of all others: life of a row, seeds, snapshots, refusals."""

import functools

import jax
import numpy as np
import pytest

from tests import jax_walk
from wmjax import envs
from wmjax.envs import snapshots
from wmjax.envs.jax_env import JaxVecEnv, check_env
from wmjax.types import JaxEnv, NonFiniteError, UsageError

ENV = jax_walk.make_env(0)  # one for all tests: what is compiled for it serves all


def assert_equal(step, other):
    jax.tree.map(np.testing.assert_array_equal, step, other)


def walks(*seeds):
    return JaxVecEnv(ENV, [*seeds], "walk")


def play(env, rows, times):
    """The steps of each row's own actions [times]."""
    return [env.step(np.sin(3.0 * time + np.arange(rows))[:, None]) for time in times]


def rows_of(steps, rows):
    return [jax.tree.map(lambda x: x[rows], step) for step in steps]


def test_life_of_a_row():
    env = walks(3, 5, 8)
    steps = [env.reset(), *play(env, 3, range(40))]
    assert steps[0].is_first.all() and not steps[0].reward.any() and steps[0].obs["image"].shape == (3, 16, 16, 1)
    lengths = np.zeros(3, int)
    for time, (before, step) in enumerate(zip(steps, steps[1:], strict=False)):
        place, first = step.obs["state"]["place"], before.is_last
        lengths = np.where(first, 0, lengths + 1)
        fell = ~first & (abs(place) > jax_walk.EDGE)
        np.testing.assert_array_equal(step.is_first, first)
        np.testing.assert_array_equal(step.is_last, fell | (lengths == jax_walk.LIMIT))
        np.testing.assert_array_equal(step.discount, ~fell)
        np.testing.assert_allclose(step.reward, np.where(first, 0, -abs(place)))
        action = np.float32(np.sin(3.0 * time + np.arange(3)))
        np.testing.assert_array_equal(step.prev_action[:, 0], np.where(first, 0, action))
    last = [step.discount[step.is_last] for step in steps]
    assert {0.0, 1.0} == set(np.concatenate(last).tolist())
    assert env.reset().is_first.all() and env.step(np.zeros((3, 1))).obs["image"].flags.writeable


def test_a_row_depends_on_its_seed_alone():
    few, many = walks(3, 5), walks(3, 5, 8)
    of_few, of_many = ([env.reset(), *play(env, rows, range(12))] for env, rows in ((few, 2), (many, 3)))
    for one, other in zip(of_few, rows_of(of_many, slice(2)), strict=True):
        assert_equal(one, other)
    place = of_many[0].obs["state"]["place"]
    assert len({*place.tolist()}) == 3
    assert (many.reset().obs["state"]["place"] != place).all(), "another episode"


def test_snapshots_are_exact_and_their_rows_can_be_parted():
    env = walks(3, 5, 8)
    current = [env.reset(), *play(env, 3, range(9))][-1]
    snapshot = env.snapshot()
    after = play(env, 3, range(9, 20))
    assert_equal(env.restore(snapshot), current)
    current.obs["image"][:] = 7
    for one, other in zip(after, play(env, 3, range(9, 20)), strict=True):
        assert_equal(one, other)
    part = walks(3, 5)
    part.restore(snapshots.rows_of(snapshot, 0, 2))
    for one, other in zip(play(part, 2, range(9, 20)), rows_of(after, slice(2)), strict=True):
        assert_equal(one, other)
    with pytest.raises(UsageError, match="another environment"):
        walks(3, 5, 9).restore(snapshot)
    assert sum(np.asarray(x).nbytes for x in snapshot.values()) < 2000


def test_the_same_steps_inside_jit():
    """A row is an environment of one row, with the keys that the module tells."""
    env = walks(5)
    steps = [env.reset(), *play(env, 1, range(3))]
    key = functools.partial(jax.random.fold_in, jax.random.key(5))
    state, step = jax.jit(ENV.reset, static_argnums=1)(key(1), 1)
    assert_equal(step, steps[0])
    for time in range(3):
        action = np.float32(np.sin([[3.0 * time]]))
        state, step = jax.jit(ENV.step)(key(time + 2), state, action)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), step, steps[time + 1])


def test_misuse():
    env = walks(3)
    for call in (lambda: env.step(np.zeros((1, 1))), env.snapshot):
        with pytest.raises(UsageError, match="before reset"):
            call()
    env.reset()
    with pytest.raises(UsageError, match="expected \\(1, 1\\)"):
        env.step(np.zeros(1))
    with pytest.raises(NonFiniteError):
        env.step(np.full((1, 1), np.nan))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("minipacman:rush", dict(maze="9x11", observe="image+state")),
        ("ball:drifting", dict(size=16)),
        ("py:tests.jax_walk:make_env", {}),
        ("py:tests.jax_walk:make_discrete", {}),
    ],
)
def test_families_in_pure_jax_have_both_doors(name, options):
    env = envs.make_jax(name, **options)
    check_env(name, env)
    assert isinstance(env, JaxEnv) and envs.make(name, 2, 0, **options).spec == env.spec


@pytest.mark.parametrize("name", ["fake:counter", "dmc:cheetah_run", "py:tests.gym_walk:GymWalk"])
def test_other_families_are_not_pure_jax(name):
    assert envs.make_jax(name) is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("py:tests.jax_walk:make_wrong", {}, "step returns a Step whose reward is .*int32.*expected .*float32"),
        ("py:tests.jax_walk:make_forgetful", {}, "the state that step returns is not like that of reset"),
        ("py:tests.jax_walk:make_float_images", {}, r"images are float32 \(16, 16, 1\): expected uint8 \(X, Y, C\)"),
        ("py:tests.jax_walk:make_flat_images", {}, r"images are uint8 \(16, 16\): expected uint8 \(X, Y, C\)"),
        ("py:tests.jax_walk:make_without_images", {}, "observations hold state: expected the image as image"),
        ("py:tests.jax_walk:make_without_spec", {}, "the spec of a JaxEnv is a dict: expected a wmjax.types.EnvSpec"),
        ("py:tests.jax_walk:make_env", dict(size=64), "size=64 is not allowed of py:.*, which is as it is: 16"),
        ("py:tests.jax_walk:make_env", dict(action_repeat=2), "action_repeat=2 is not allowed"),
        ("py:tests.jax_walk:make_env", dict(colour=2), "unknown py option 'colour'"),
        ("walk:any", {}, "unknown environment 'walk:any'"),
    ],
)
def test_refusals(name, options, message):
    for make in (lambda: envs.make(name, 1, 0, **options), lambda: envs.make_jax(name, **options)):
        with pytest.raises(UsageError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_options_that_change_nothing_are_allowed():
    options = dict(size=16, action_repeat=1, grey=False, image_key="pixels", stack=1, vector_keys=())
    for limit in (None, jax_walk.LIMIT):
        env = envs.make("py:tests.jax_walk:make_env", 1, 0, episode_steps=limit, **options)
        assert env.spec.obs_shape == (16, 16, 1)
