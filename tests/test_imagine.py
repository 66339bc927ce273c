"""The rollout engine on models whose answers are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import SPEC, Point, make_point_model, make_trail_model, random_steps
from wmjax import imagine
from wmjax.types import UsageError

B, T, H = 3, 6, 4
KEY = jax.random.key(0)
PARAMS = np.float32(1)


def point(seed=0):
    rng = np.random.default_rng(seed)
    return Point(*rng.integers(-8, 8, (2, B, 2)).astype(np.float32) / 8)


def test_filter_equals_a_loop_over_time():
    model = make_point_model(2)
    rng = np.random.default_rng(0)
    start = point()
    prev_action = rng.integers(-8, 8, (B, T, 2)).astype(np.float32) / 8
    embed = rng.integers(-8, 8, (B, T, 1)).astype(np.float32) / 8
    is_first = np.zeros((B, T), bool)
    is_first[0, 0] = is_first[1, 3] = True
    inputs = dict(prev_action=prev_action, embed=embed, is_first=is_first)
    last, states, aux = jax.jit(lambda inputs: imagine.filter(model, PARAMS, KEY, start, **inputs))(inputs)

    position = start.position
    for t in range(T):
        position = np.where(is_first[:, t, None], 0, position + prev_action[:, t]) + embed[:, t]
        np.testing.assert_array_equal(states.position[:, t], position)
        np.testing.assert_array_equal(aux[:, t], position.sum(-1))
    np.testing.assert_array_equal(last.position, position)
    np.testing.assert_array_equal(states.target, np.repeat(start.target[:, None], T, axis=1))


def test_filter_gives_every_step_its_own_key():
    model = make_point_model(1)
    model = model._replace(observe=lambda params, key, state, *_: (state, jax.random.uniform(key, (B,))))
    inputs = dict(prev_action=np.zeros((B, T, 1)), embed=np.zeros((B, T, 1)), is_first=np.zeros((B, T), bool))
    noise = imagine.filter(model, PARAMS, KEY, model.initial(PARAMS, B), **inputs)[2]
    assert len(np.unique(noise)) == B * T


def test_open_loop_adds_up_the_actions():
    model = make_point_model(2)
    actions = np.random.default_rng(0).integers(-8, 8, (H, B, 2)).astype(np.float32) / 8
    states = imagine.open_loop(model, PARAMS, KEY, point(), actions)
    np.testing.assert_array_equal(states.position, point().position + np.cumsum(actions, axis=0))
    np.testing.assert_array_equal(states.target, np.repeat(point().target[None], H, axis=0))


@pytest.fixture(scope="module")
def halving():
    """A jitted rollout under the policy that halves the distance to 0; reward -|position|^2, over beyond 0.2."""
    model = make_point_model(2, edge=0.2)
    return jax.jit(lambda state: imagine.rollout(model, PARAMS, KEY, state, lambda key, features: -features / 2, H))


def test_rollout_values(halving):
    start = Point(np.float32([[1, -1], [0.5, 4], [0.25, 0]]), np.zeros((B, 2), np.float32))
    last, steps = halving(start)
    halvings = 0.5 ** np.arange(1, H + 1)
    positions = start.position[:, None] * halvings[None, :, None]  # [B, H, A], after each action
    np.testing.assert_array_equal(last.position, positions[:, -1])
    np.testing.assert_array_equal(steps.prev_action, -positions)  # half of twice as far
    np.testing.assert_allclose(steps.reward, -np.square(positions).sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(steps.discount, [[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    for flag in (steps.is_first, steps.is_last):
        np.testing.assert_array_equal(flag, np.zeros((B, H), bool))
    assert steps.obs is None
    assert steps.reward.dtype == steps.discount.dtype == steps.prev_action.dtype == np.float32


def test_closed_loop_keeps_its_start_and_every_action():
    start = point()
    policy = lambda key, features: -features / 2
    imagined = jax.jit(lambda start: imagine.closed_loop(make_point_model(2), PARAMS, KEY, start, policy, H))
    states, actions = imagined(start)
    halvings = 0.5 ** np.arange(H + 1)
    positions = start.position[None] * halvings[:, None, None]  # [H + 1, B, A], the given ones first
    np.testing.assert_array_equal(states.position, positions)
    np.testing.assert_array_equal(states.target, np.repeat(start.target[None], H + 1, axis=0))
    np.testing.assert_array_equal(actions, -positions[1:])


def test_rollout_rows_are_independent(halving):
    changed = Point(*(x.at[2].set(7.0) for x in jax.tree.leaves(jax.tree.map(jnp.asarray, point()))))
    (_, one), (_, other) = halving(point()), halving(changed)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a[:2], b[:2])
    assert (one.reward[2] != other.reward[2]).all()


def test_rollout_gives_policy_and_model_different_keys_at_every_step():
    model = make_point_model(1)

    def noisy(params, key, state, action):
        return state.replace(position=jax.random.normal(key, (B, 1)))

    policy = lambda key, features: jax.random.normal(key, (B, 1))
    _, steps = imagine.rollout(model._replace(imagine=noisy), PARAMS, KEY, model.initial(PARAMS, B), policy, H)
    drawn = np.concatenate([np.abs(steps.prev_action[..., 0]).ravel(), np.sqrt(-steps.reward).ravel()])
    assert len(np.unique(drawn.round(5))) == 2 * B * H


@pytest.mark.parametrize("distance", [2, 3, 5, 8])
def test_overshoot_indices(distance):
    """Row (b, t) of distance d starts from what was seen at t - d and takes the actions of t - d + 1 ... t."""
    model = make_trail_model()
    rng = np.random.default_rng(0)
    actions = rng.integers(1, 10, (B, T, 1)).astype(np.float32)
    embed = np.stack(np.broadcast_arrays(np.arange(B)[:, None], np.arange(T)[None]), -1).astype(np.float32)
    is_first = np.zeros((B, T), bool)
    is_first[0, 0] = is_first[1, 3] = is_first[2, 1] = is_first[2, 4] = True

    @jax.jit
    def run(actions, embed, is_first):
        inputs = dict(prev_action=actions, is_first=is_first)
        states = imagine.filter(model, None, KEY, model.initial(None, B), embed=embed, **inputs)[1]
        return imagine.overshoot(model, None, KEY, states, distance=distance, **inputs)

    priors, valid = run(actions, embed, is_first)
    assert valid.shape == (distance - 1, B, T) and valid.dtype == bool
    expected = np.zeros_like(valid)
    for d in range(2, distance + 1):
        for b in range(B):
            for t in range(d, T):
                digits = "".join(str(int(a)) for a in actions[b, t - d + 1 : t + 1, 0])
                prior = jax.tree.map(lambda x, at=(d - 2, b, t): float(x[at]), priors)
                assert (prior.row, prior.start, prior.steps, prior.path) == (b, t - d, d, int(digits))
                expected[d - 2, b, t] = not is_first[b, t - d + 1 : t + 1].any()
    np.testing.assert_array_equal(valid, expected)


def at_once(**wrong):
    """Filters, imagines or overshoots with one argument that is not as it should be."""
    model, start = make_point_model(2), point()
    steps = dict(prev_action=np.zeros((B, T, 2), np.float32), is_first=np.zeros((B, T), bool))
    if "policy" in wrong or "horizon" in wrong:
        wrong = dict(policy=lambda key, features: -features, horizon=H) | wrong
        return imagine.closed_loop(model, PARAMS, KEY, start, wrong["policy"], wrong["horizon"])
    if "first_actions" in wrong:
        return imagine.branch(model, PARAMS, KEY, start, wrong["first_actions"], None, wrong.get("depth", 1))
    if "distance" in wrong:
        return imagine.overshoot(model, PARAMS, KEY, start, **steps, **wrong)
    return imagine.filter(model, PARAMS, KEY, start, **(steps | dict(embed=np.zeros((B, T, 1), np.float32)) | wrong))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(horizon=-1), "horizon -1: must be 0 or more"),
        (dict(first_actions=np.zeros((B, 2, 2)), depth=0), "horizon 0: must be at least 1"),
        (dict(distance=1), "distance 1 of overshooting: must be at least 2"),
        (dict(policy=lambda key, features: jnp.zeros(B, jnp.int32)), "rank 1 .* expected 2"),
        (dict(first_actions=np.zeros((1, 2, 2), np.float32)), "shape"),
        (dict(prev_action=np.zeros((B, T), np.int32)), "rank 2 .* expected 3"),
        (dict(is_first=np.zeros((B, T, 1), bool)), "rank 3 .* expected 2"),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_what_would_be_broadcast_or_nothing_is_refused(wrong, message):
    with pytest.raises((UsageError, AssertionError), match=message):
        at_once(**wrong)


def test_records_whose_fields_differ_in_their_axes_are_refused():
    steps = random_steps(SPEC, B, T)
    with pytest.raises(AssertionError, match="prefix"):
        imagine.filter_steps(make_point_model(2), PARAMS, KEY, steps.replace(reward=steps.reward.T), SPEC.action)


def test_heads_of_folded_states_keep_their_place():
    model = make_point_model(1, edge=2)
    position = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    states = Point(position, np.zeros_like(position))
    np.testing.assert_array_equal(imagine.rewards(model, PARAMS, states), [[0, -1, -4], [-9, -16, -25]])
    np.testing.assert_array_equal(imagine.discounts(model, PARAMS, states), [[1, 1, 1], [0, 0, 0]])
