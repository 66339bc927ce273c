"""The learner of PPO: one round against plain numpy, shuffling, clipping."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import ppo_by_hand
from wmjax.agents import ppo
from wmjax.agents.ppo.learner import PPOBatch, compute_advantages, minibatches, ppo_loss
from wmjax.nets.policy import VectorPolicy
from wmjax.types import UsageError

KEY, OTHER_KEY = jax.random.key(0), jax.random.key(1)
B, H, F, M = 3, 5, 4, 3
LINEAR = VectorPolicy(M, ())
# Steps large enough that the ratio, the change in value and the gradient's norm are clipped somewhere, not everywhere.
CONFIG = ppo.PPOConfig(learning_rate=0.05, epochs=3, minibatch=6, entropy=0.1, clip_norm=0.7, bootstrap=True)


def random_rollout(seed=0):
    """Rollout [B, H] of noise; row 0 is cut, row 1 ends in the middle, row 2 may end anywhere."""
    rng = np.random.default_rng(seed)
    discount = np.ones((B, H))
    discount[1, 2] = 0
    discount[2] = rng.uniform(size=H)
    action = np.eye(M)[rng.integers(0, M, (B, H))]
    arrays = rng.normal(size=(B, H + 1, F)), action, rng.normal(size=(B, H)), discount
    return ppo.Rollout(*(x.astype(np.float32) for x in arrays))


@pytest.fixture(scope="module")
def learner():
    learner = ppo.make(CONFIG, LINEAR, (F,))
    return learner._replace(update=jax.jit(learner.update))


def test_a_round_equals_plain_numpy(learner):
    """15 decisions in minibatches of 6, 6 and 3, three times over."""
    state, rollout = learner.init(KEY), random_rollout()
    new, metrics = learner.update(state, OTHER_KEY, rollout)
    whole, rest = map(np.asarray, minibatches(OTHER_KEY, B * H, CONFIG.epochs, CONFIG.minibatch))
    batches = [batch for epoch in range(CONFIG.epochs) for batch in (*whole[epoch], rest[epoch])]
    assert [len(batch) for batch in batches] == [6, 6, 3] * 3
    params, expected = ppo_by_hand.update(state.params["params"], CONFIG, rollout, batches)
    assert [x.item() for x in metrics.pop("grad_finite").values()] == [True] * 4
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert value.shape == () and value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), new.params["params"], params)
    assert 0.1 < metrics["clip_fraction"] < 0.9 and int(new.updates) == 1


def test_rounds_compile_once_and_the_key_is_the_order(learner):
    state, rollout = learner.init(KEY), random_rollout()
    one, _ = learner.update(state, KEY, rollout)
    again, _ = learner.update(state, KEY, rollout)
    other, _ = learner.update(state, OTHER_KEY, rollout)
    two, _ = learner.update(one, KEY, random_rollout(1))
    assert learner.update._cache_size() == 1 and int(two.updates) == 2
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_members_are_a_leading_axis(learner):
    keys = jax.random.split(KEY, 2)
    states = jax.vmap(learner.init)(keys)
    after, _ = jax.vmap(learner.update, in_axes=(0, 0, None))(states, keys, random_rollout())
    alone, _ = learner.update(learner.init(keys[1]), keys[1], random_rollout())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), after.params, alone.params)


def test_a_gradient_that_is_not_finite_is_reported(learner):
    rollout = random_rollout()
    rollout.reward[0, 0] = np.nan
    _, metrics = learner.update(learner.init(KEY), KEY, rollout)
    assert not any(metrics["grad_finite"].values()) and np.isnan(metrics["policy_loss"])


def another_end(rollout):
    """The Rollout with other last features, in arrays of its own: jax may be reading those of the first one yet."""
    features = rollout.features.copy()
    features[:, -1] += 5
    return rollout.replace(features=features)


def test_a_cut_is_bootstrapped_and_an_end_is_not(learner):
    """What lies behind the last decision matters where the episode goes on there, and nowhere else."""
    for last, differ in [(0.0, False), (1.0, True)]:
        rollout = random_rollout()
        rollout.discount[:, -1] = last
        _, one = learner.update(learner.init(KEY), KEY, rollout)
        _, two = learner.update(learner.init(KEY), KEY, another_end(rollout))
        assert (one["value_loss"] != two["value_loss"]) == differ


@pytest.mark.parametrize("bootstrap", [False, True])
def test_imagined_episodes_end_with_the_rollout_unless_bootstrapped(learner, bootstrap):
    """Equation 17: d = 1 for t >= T_sim, whatever the model says of the last step."""
    config = dataclasses.replace(CONFIG, bootstrap=bootstrap)
    params, rollout = learner.init(KEY).params, random_rollout()
    found = jax.jit(lambda params, rollout: compute_advantages(LINEAR, config, params, rollout))
    *_, advantage = ppo_by_hand.decisions(jax.tree.map(np.asarray, params["params"]), config, rollout)
    np.testing.assert_allclose(found(params, rollout).advantage, advantage, rtol=1e-4, atol=1e-5)
    beyond = random_rollout()
    beyond.features[:, -1] += 5
    assert (found(params, rollout).advantage != found(params, beyond).advantage).any() == bootstrap
    assert not ppo.PPOConfig().bootstrap


@pytest.mark.parametrize(("size", "minibatch", "left"), [(800, 256, 32), (15, 6, 3), (12, 6, 0), (5, 8, 5)])
def test_every_epoch_is_a_permutation(size, minibatch, left):
    whole, rest = map(np.asarray, minibatches(KEY, size, 3, minibatch))
    assert whole.shape == (3, size // minibatch, minibatch) and rest.shape == (3, left)
    orders = np.concatenate([whole.reshape(3, -1), rest], axis=1)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(size), (3, 1)))
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("minibatch", [5, 15, 40])
def test_minibatches_that_divide_or_hold_all(minibatch):
    """No smaller one at an epoch's end, or nothing but it."""
    learner = ppo.make(dataclasses.replace(CONFIG, minibatch=minibatch), LINEAR, (F,))
    rollout = random_rollout()
    state = learner.init(KEY)
    new, metrics = jax.jit(learner.update)(state, KEY, rollout)
    whole, rest = map(np.asarray, minibatches(KEY, B * H, CONFIG.epochs, minibatch))
    batches = [batch for epoch in range(CONFIG.epochs) for batch in (*whole[epoch], rest[epoch]) if batch.size]
    params, expected = ppo_by_hand.update(state.params["params"], CONFIG, rollout, batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), new.params["params"], params)
    np.testing.assert_allclose(metrics["entropy"], expected["entropy"], rtol=1e-3)


def random_decisions(rows):
    rng = np.random.default_rng(3)
    action = np.eye(M)[rng.integers(0, M, rows)]
    columns = rng.normal(size=(rows, F)), action, np.log(rng.uniform(0.2, 0.6, rows)), *rng.normal(size=(2, rows))
    return PPOBatch(*(x.astype(np.float32) for x in columns))


def loss_and_gradient(batch, config=CONFIG):
    params = LINEAR.init(KEY, np.zeros((1, F), np.float32))
    function = jax.value_and_grad(ppo_loss, argnums=2, has_aux=True)
    return jax.jit(lambda batch: function(LINEAR, config, params, batch))(batch)


def two_decisions(ratios, advantages=(1, -1)):
    """Two decisions whose ratio of probabilities, now over then, is given."""
    batch = random_decisions(2)
    params = LINEAR.init(KEY, np.zeros((1, F), np.float32))
    now = (batch.action * jax.nn.log_softmax(LINEAR.apply(params, batch.features)[0])).sum(-1)
    return batch.replace(log_prob=now - np.log(np.float32(ratios)), advantage=np.float32(advantages))


@pytest.mark.parametrize(
    ("ratios", "moved"),
    [
        ((1.5, 0.5), False),  # a good action already likelier by more than the clip, a bad one already less likely
        ((0.5, 0.5), True),  # a good action has become less likely: pulled back
        ((1.5, 1.5), True),
        ((1.05, 0.95), True),  # inside
    ],
)
def test_clipping_stops_the_policy_gradient(ratios, moved):
    config = ppo.PPOConfig(entropy=0.0, value_scale=0.0)
    (_, metrics), grads = loss_and_gradient(two_decisions(ratios), config)
    kernel = np.asarray(grads["params"]["logits"]["kernel"])
    assert (np.abs(kernel).max() > 1e-3) == moved and (kernel != 0).any() == moved
    assert metrics["clip_fraction"] == np.mean([abs(ratio - 1) > 0.1 for ratio in ratios])


@pytest.mark.parametrize(("change", "target", "moved"), [(0.5, 1, False), (0.5, -1, True), (0.05, 1, True)])
def test_clipping_stops_the_value_gradient(change, target, moved):
    """change: of the value since then; target: relative to the value then. Flat where it has gone far enough."""
    batch = two_decisions((1.0, 1.0), (target, target))
    params = LINEAR.init(KEY, np.zeros((1, F), np.float32))
    batch = batch.replace(value=LINEAR.apply(params, batch.features)[1] - change)
    (_, metrics), grads = loss_and_gradient(batch, ppo.PPOConfig(entropy=0.0))
    assert (np.abs(grads["params"]["value"]["kernel"]).max() > 1e-3) == moved
    assert (np.asarray(grads["params"]["value"]["kernel"]) != 0).any() == moved
    error = target - (0.1 if (change, target) == (0.5, 1) else change)
    np.testing.assert_allclose(metrics["value_loss"], 0.5 * error**2, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("learning_rate", 0.0), ("adam_epsilon", 0.0), ("clip_norm", 0.0), ("clip", 0.0), ("temperature", 0.0)],
        *[("discount", 1.1), ("discount", -0.1), ("gae_lambda", 1.1), ("gae_lambda", -0.1), ("learning_rate", np.nan)],
        *[("entropy", -0.1), ("value_scale", -0.1), ("epochs", 0), ("minibatch", 0)],
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UsageError, match=f"agent {name} {value}: must be"):
        ppo.PPOConfig(**{name: value})


def test_settings_at_the_edge_are_taken():
    ppo.PPOConfig(discount=1.0, gae_lambda=0.0, entropy=0.0, value_scale=0.0, epochs=1, minibatch=1)
