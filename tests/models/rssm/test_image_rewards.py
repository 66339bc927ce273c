"""Settings of the trade-offs study: rewards of images, gradients that are stopped, parts of images."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import nets_by_hand
from tests.fakes import SPEC, normal
from tests.tiny_rssm import KEY, B, T, chunks, configured, random_params
from wmjax import imagine
from wmjax.models import rssm
from wmjax.models.rssm.learner import image_loss, model_loss
from wmjax.ops import gaussian
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.types import ActionSpec, EnvSpec, UsageError

H = 4
STARTS = T - H + 1  # windows of a chunk
IMAGES = dict(reward_from="images", reward_horizon=H, reward_widths=(4, 4))
CASES = dict(
    features={},
    features_stopped=dict(reward_gradient="stopped"),
    images=IMAGES,
    images_stopped=IMAGES | dict(reward_gradient="stopped"),
    leak=IMAGES | dict(reward_leak=True),
)
PAPER = dict(hidden=300, reward_layers=3, reward_units=300, reward_scale=10.0, adam_epsilon=1e-3, image_bits=8)


@functools.cache
def made(name):
    """(config, model, parameters with no zeros)."""
    config = configured(**CASES[name])
    model, learner = rssm.make(config, SPEC)
    return config, model, random_params(learner)


@functools.cache
def looked(name):
    """Of the chunks: the reward's loss, its gradients by parameter, and the gradients' change with the true rewards."""
    config, model, params = made(name)
    batch = chunks()
    direction = normal(B, T, seed=3)

    def loss(params, reward):
        return model_loss(model, config, SPEC.action, params, KEY, batch.replace(reward=reward))[1]["reward_loss"]

    @jax.jit
    def look(params, reward):
        value, grads = jax.value_and_grad(loss)(params, reward)
        return value, grads, jax.jvp(jax.grad(lambda reward: loss(params, reward)), (reward,), (direction,))[1]

    return *jax.device_get(look(params, batch.reward)), direction


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 5_511_520),
        (dict(reward_from="images"), 5_289_819),
        (dict(reward_from="images", reward_leak=True), 5_290_803),
        (dict(image_scale=0.0), 5_511_520 - 3_795_555),
    ],
)
def test_parameter_counts_of_the_study(settings, count):
    """Table 6 for cheetah: 5.51M of LT_LR, 5.29M of LT_OR. The last has no decoder."""
    spec = EnvSpec(jax.ShapeDtypeStruct((64, 64, 3), np.uint8), ActionSpec(6, False, -1.0, 1.0))
    _, learner = rssm.make(rssm.RSSMConfig(**PAPER, **settings), spec)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(learner.init, KEY).params)) == count


@pytest.mark.parametrize("name", ["images", "leak"])
def test_rewards_of_imagined_images_equal_numpy(name):
    """With the published input each row is told the last reward that was observed."""
    _, model, params = made(name)
    actions = normal(H, B, 2, seed=1)

    @jax.jit
    def look(params, steps):
        state, states, _ = imagine.filter_steps(model, params, KEY, steps, SPEC.action)
        arrived = imagine.open_loop(model, params, KEY, state, actions)
        images = unfold_like(model.decode(params, fold(arrived)), arrived)
        again = jax.tree.map(lambda x: x[:, -1], states)
        rewards = [imagine.predict_rewards(model, params, KEY, each, actions)[0] for each in (state, again)]
        return rewards, time_first(images), model.reward(params, state)

    batch = chunks()
    (rewards, again), images, single = jax.device_get(look(params, batch))
    known = batch.reward[:, -1:] if name == "leak" else None
    by_hand = nets_by_hand.image_rewards(params["reward"]["params"], images, known).T
    assert rewards.shape == (H, B) and rewards.std() > 0
    np.testing.assert_allclose(rewards, by_hand, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(rewards, again)
    assert np.isnan(single).all()  # no reward of a single state is learned


@pytest.mark.parametrize("name", ["images", "leak"])
def test_the_loss_is_of_every_window_of_the_horizon(name):
    """Images of the posterior states at the times of the rewards."""
    _, model, params = made(name)
    batch = chunks()

    @jax.jit
    def decoded(params):
        _, states, _ = imagine.filter_steps(model, params, jax.random.split(KEY, 3)[1], batch, SPEC.action)
        return unfold_like(model.decode(params, fold(states)), states)

    images, errors = np.asarray(decoded(params)), []
    for start in range(STARTS):
        window = batch.reward[:, start : start + H]
        known = window[:, -1:] if name == "leak" else None
        predicted = nets_by_hand.image_rewards(params["reward"]["params"], images[:, start : start + H], known)
        errors.append(np.square(window - predicted))
    np.testing.assert_allclose(looked(name)[0], 0.5 * np.mean(errors), rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_predictions_do_not_know_the_rewards_they_are_of(name):
    """Then the gradient at a reward changes with that reward alone, by its weight: the published input fails."""
    *_, change, direction = looked(name)
    windows = np.ones(T) if "features" in name else np.bincount((np.arange(STARTS)[:, None] + np.arange(H)).ravel())
    expected = direction * (windows / (windows.sum() * B))[None]
    apart = np.abs(change - expected).max() / np.abs(expected).max()
    assert apart > 0.01 if name == "leak" else apart < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_stopped_gradients_train_the_reward_head_alone(name):
    _, grads, *_ = looked(name)
    trained = {module for module, tree in grads.items() if any(x.any() for x in jax.tree.leaves(tree))}
    own = {"encoder", "input", "gru", "posterior"} | (set() if "features" in name else {"decoder"})
    assert trained == {"reward"} | (set() if "stopped" in name else own)


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_pixels_outside_the_centre_have_no_gradient(fit):
    config = configured(image_side=6, image_fit=fit)
    target, mean = normal(3, 16, 16, 3), normal(3, 16, 16, 3, seed=1)
    inside = np.zeros((16, 16), bool)
    inside[5:11, 5:11] = True
    grad = jax.grad(lambda mean: image_loss(config, target, mean))(mean)
    np.testing.assert_array_equal((np.asarray(grad) != 0).all((0, 3)), inside)
    np.testing.assert_array_equal((np.asarray(grad) != 0).any((0, 3)), inside)


def test_a_resized_image_is_all_of_the_image_and_a_crop_is_not():
    """A constant image stays constant; a change at its edge is seen in the one target alone."""
    constant = np.full((1, 16, 16, 3), 0.25, np.float32)
    edge = constant.copy()
    edge[:, 0, 0] = -0.5
    for fit in ("crop", "resize"):
        loss = functools.partial(image_loss, configured(image_side=6, image_fit=fit))
        np.testing.assert_allclose(loss(constant, constant), 0, atol=1e-10)
        assert (loss(edge, constant) > 1e-6) == (fit == "resize")


def test_a_centre_as_large_as_the_image_is_all_of_it():
    target, mean = normal(3, 16, 16, 3), normal(3, 16, 16, 3, seed=1)
    whole = -gaussian.unit_log_prob(target, mean, 3).mean()
    for settings in ({}, dict(image_side=16), dict(image_side=16, image_fit="resize"), dict(image_side=64)):
        np.testing.assert_array_equal(image_loss(configured(**settings), target, mean), whole)


def test_the_encoder_sees_what_is_not_predicted():
    model, learner = rssm.make(configured(image_side=6), SPEC)
    obs = np.zeros((2, 16, 16, 3), np.uint8)
    obs[1, 0, 0] = 255
    embed = jax.jit(model.encode)(random_params(learner), obs)
    assert (embed[0] != embed[1]).any()


def test_no_pixels_is_no_decoder_and_the_gradients_of_a_scale_of_zero():
    batch, found = chunks(), []
    _, whole, params = made("features")
    without, _ = rssm.make(configured(image_side=0), SPEC)
    assert without.decode is None and whole.decode is not None
    for model in (whole, without):
        loss = functools.partial(model_loss, model, configured(image_scale=0.0), SPEC.action)
        found.append(jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(params, KEY, batch)))
    (with_decoder, metrics), (grads, rest) = found
    assert not any(x.any() for x in jax.tree.leaves(with_decoder["decoder"]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), with_decoder, grads)
    assert set(metrics) - set(rest) == {"image_loss"}


def test_chunks_shorter_than_the_horizon_are_refused():
    config, model, params = made("images")
    short = jax.tree.map(lambda x: x[:, : H - 1], chunks())
    with pytest.raises(UsageError, match=f"reward_horizon {H}: chunks have only {H - 1} rows"):
        jax.eval_shape(functools.partial(model_loss, model, config, SPEC.action), params, KEY, short)


def test_the_leak_is_kept_in_the_state_until_the_next_reward():
    _, model, params = made("leak")
    state = jax.eval_shape(lambda: model.initial(params, B))
    assert state.reward.shape == (B, 1) and made("images")[1].with_reward is None
    told = model.with_reward(model.initial(params, B), jnp.arange(B) + 1.0)
    later = jax.jit(lambda state: model.imagine(params, KEY, state, jnp.zeros((B, 2))))(told)
    np.testing.assert_array_equal(later.reward[:, 0], np.arange(B) + 1.0)
