"""Models of rewards alone against plain numpy, and what their loss is of."""

import functools
import math

import jax
import numpy as np
import pytest

from tests.fakes import SPEC, normal, random_steps, randomised
from tests.nets_by_hand import convolve, dense, sigmoid
from wmjax import imagine
from wmjax.models import reward_only
from wmjax.models.reward_only.learner import reward_loss
from wmjax.nets.reward import RewardHead
from wmjax.types import ActionSpec, EnvSpec, UsageError

KEY, B, T, H = jax.random.key(0), 3, 6, 4
SIZES = dict(encoder_widths=(4, 3), code=3, action_widths=(5, 4), lstm_units=4, reward_widths=(6, 5), horizon=H)


@functools.cache
def made(kind, dropout=0.0):
    """(config, model, parameters with no zeros)."""
    config = reward_only.RewardOnlyConfig(kind=kind, dropout=dropout, **SIZES)
    model, learner = reward_only.make(config, SPEC)
    return config, model, randomised(jax.eval_shape(learner.init, KEY).params, 0.4)


def leaky(x):
    return np.where(x > 0, x, 0.3 * x)


def code_by_hand(params, obs):
    convolutions, last = params["encoder"]["params"]["layers_0"], params["encoder"]["params"]["layers_1"]
    x = obs / 255.0
    for name in ("Conv_0", "Conv_1"):
        x = leaky(convolve(convolutions[name], x, 2))
    return dense(last, x.reshape(len(x), -1))


def action_by_hand(params, action):
    for layer in params["action"]["params"]["layers_0"].values():
        action = leaky(dense(layer, action))
    return action


def head_by_hand(params, x):
    layers = params["reward"]["params"]
    return dense(layers["Dense_2"], leaky(dense(layers["Dense_1"], leaky(dense(layers["Dense_0"], x)))))


def rewards_by_hand(kind, params, obs, actions):
    """obs [B, X, Y, C], actions [H, B, A] -> [H, B]."""
    code = code_by_hand(params, obs)
    if kind == "conv":
        together = action_by_hand(params, np.swapaxes(actions, 0, 1).reshape(len(obs), -1))
        return head_by_hand(params, np.concatenate([code, together], -1)).T
    cell, h, c, found = params["lstm"]["params"], np.zeros((len(obs), 4)), np.zeros((len(obs), 4)), []
    for action in actions:
        x = np.concatenate([code, action_by_hand(params, action)], -1)
        i, f, g, o = np.split(x @ cell["input_kernel"] + h @ cell["recurrent_kernel"] + cell["bias"], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(head_by_hand(params, leaky(h))[:, 0])
    return np.stack(found)


def test_parameter_counts():
    """Table 6: 81.6K of R. R_conv is not in it: the same convolutions, one action code, twelve rewards."""
    spec = EnvSpec(jax.ShapeDtypeStruct((64, 64, 3), np.uint8), ActionSpec(6, False, -1.0, 1.0))
    counts = {}
    for kind in ("recurrent", "conv"):
        _, learner = reward_only.make(reward_only.RewardOnlyConfig(kind=kind), spec)
        counts[kind] = sum(math.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(learner.init, KEY).params))
    image = (27 * 32 + 32) + (288 * 64 + 64) + (576 * 16 + 16) + (784 * 16 + 16)
    assert counts["recurrent"] == 81_553
    action = (72 * 64 + 64) + (64 * 32 + 32) + (32 * 16 + 16)
    assert counts["conv"] == image + action + (32 * 128 + 128) + (128 * 32 + 32) + (32 * 12 + 12)


@pytest.mark.parametrize("kind", ["recurrent", "conv"])
def test_rewards_and_loss_equal_numpy(kind):
    """The loss is of image 0, actions 1.. and rewards 1.., of conv up to its horizon, as far as the episode goes."""
    config, model, params = made(kind)
    batch = random_steps(SPEC, B, T)
    batch.is_first[1, 3] = True
    actions = normal(H, B, 2, seed=2)

    @jax.jit
    def look(params):
        state = imagine.begin(model, params, KEY, batch.obs[:, 2], SPEC.action)
        rewards = imagine.predict_rewards(model, params, KEY, state, actions)
        grad = jax.grad(lambda reward: reward_loss(config, SPEC, params, KEY, batch.replace(reward=reward)))
        return *rewards, reward_loss(config, SPEC, params, KEY, batch), grad(batch.reward)

    rewards, discounts, loss, grad = look(params)
    np.testing.assert_allclose(rewards, rewards_by_hand(kind, params, batch.obs[:, 2], actions), rtol=1e-4, atol=1e-5)
    assert (discounts == 1).all() and model.horizon == (H if kind == "conv" else None)
    ahead = slice(1, H + 1 if kind == "conv" else T)
    predicted = rewards_by_hand(kind, params, batch.obs[:, 0], np.swapaxes(batch.prev_action, 0, 1)[ahead]).T
    error = batch.reward[:, ahead] - predicted
    error[1, 2:] = 0  # times 3..
    np.testing.assert_allclose(loss, np.square(error).mean(), rtol=1e-4)
    expected = np.zeros((B, T))
    expected[:, ahead] = 2 * error / error.size
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_predictions_do_not_know_the_rewards_they_are_of():
    config, _, params = made("recurrent")
    batch, direction = random_steps(SPEC, B, T), normal(B, T)
    grad = jax.grad(lambda reward: reward_loss(config, SPEC, params, KEY, batch.replace(reward=reward)))
    change = jax.jit(lambda reward: jax.jvp(grad, (reward,), (direction,))[1])(batch.reward)
    direction[:, 0] = 0
    np.testing.assert_allclose(change, 2 * direction / (B * (T - 1)), rtol=1e-5, atol=1e-7)


def test_an_image_is_all_that_is_known_of_the_past():
    """And a code of it all that is kept of it."""
    _, model, params = made("recurrent")
    state = jax.tree.map(lambda x: normal(*x.shape), jax.eval_shape(lambda: model.initial(params, B)))
    embed = normal(B, 3)
    seen, _ = model.observe(params, KEY, state, normal(B, 2), embed, np.zeros(B, bool))
    np.testing.assert_array_equal(seen.code, embed)
    assert not seen.h.any() and not seen.c.any()


def test_dropout_is_of_training_alone():
    """In other places for another key."""
    config, model, params = made("recurrent", 0.5)
    batch = random_steps(SPEC, B, T)
    loss = jax.jit(functools.partial(reward_loss, config, SPEC))
    one, again, other = (float(loss(params, key, batch)) for key in (KEY, KEY, jax.random.key(1)))
    assert one == again != other
    state = jax.tree.map(lambda x: normal(*x.shape), jax.eval_shape(lambda: model.initial(params, B)))
    np.testing.assert_array_equal(model.reward(params, state), made("recurrent")[1].reward(params, state))


def test_dropped_units_are_zero_and_the_others_as_much_larger():
    """Half of them in each of two layers, drawn apart."""
    weights = dict(Dense_0=dict(kernel=np.zeros((1, 400)), bias=np.ones(400)))
    weights |= {name: dict(kernel=np.eye(400), bias=np.zeros(400)) for name in ("Dense_1", "Dense_2")}
    units = np.asarray(RewardHead((400, 400), 400, 0.5).apply({"params": weights}, np.zeros((1, 1)), KEY))
    assert set(units[0]) == {0.0, 4.0} and 0.68 < (units == 0).mean() < 0.82


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (dict(kind="lstm"), "'lstm'.*recurrent, conv"),
        (dict(dropout=1.0), "dropout 1.0"),
        (dict(horizon=0), "horizon 0"),
        (dict(encoder_widths=()), "encoder_widths"),
    ],
)
def test_refusals_name_the_setting(settings, named):
    with pytest.raises(UsageError, match=named):
        reward_only.RewardOnlyConfig(**settings)


def test_images_and_chunks_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="16x16 is too small"):
        reward_only.make(reward_only.RewardOnlyConfig(encoder_widths=(4,) * 4), SPEC)
    for kind, rows in (("recurrent", 1), ("conv", H)):
        config, _, params = made(kind)
        with pytest.raises(UsageError, match=f"chunks have only {rows} rows"):
            jax.eval_shape(functools.partial(reward_loss, config, SPEC), params, KEY, random_steps(SPEC, B, rows))
