"""State diagnostics: windows, R2 by hand, a model that knows the state, gradients that do not reach the model."""

import functools
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.planet import diagnostics
from tests import mains
from tests.fakes import SPEC, random_steps
from wmjax import envs
from wmjax.agents.random import make_random_actor
from wmjax.models import rssm
from wmjax.nets.mlp import MLP
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import UsageError, WorldModel

TINY = dict(encoder_widths=(4, 8), decoder_widths=(8,), decoder_hidden=8, stochastic=4, deterministic=6, hidden=5)


def firsts(text):
    """bool [T] of "f....f..", f where an episode begins."""
    return np.array([letter == "f" for letter in text])


def test_windows_stay_in_their_episode():
    is_first = firsts("f....f..f.")
    assert diagnostics.windows(is_first, 3).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7]]
    assert diagnostics.windows(is_first, 5).tolist() == [[0, 1, 2, 3, 4]]
    assert len(diagnostics.windows(is_first, 6)) == len(diagnostics.windows(is_first, 11)) == 0
    assert diagnostics.longest_episode(is_first[:, None]) == 5
    assert diagnostics.longest_episode(np.stack([firsts("f..f...."), firsts("f......f")], 1)) == 7


def test_quantities_and_their_units():
    """Standard deviations from the mean, both of the fitting episodes; what does not vary there keeps its unit."""
    obs = dict(velocity=np.zeros((2, 3, 2)), image=np.zeros((2, 3, 8, 8, 3)), height=np.full((2, 3, 1), 0.3))
    obs["velocity"][..., 1] = [[1, 5, 9], [3, 7, 9]]
    obs["height"][1, 2] = 2.3
    reward = np.float32([[0, 0, 0], [2, 2, 1]])
    names, true = diagnostics.quantities(types.SimpleNamespace(obs=obs, reward=reward))
    assert names == ["height", "velocity 0", "velocity 1", "reward"]
    found = diagnostics.standardised(true, fitting=2)
    deviation = 5**0.5  # of 1, 3, 5, 7, whose mean is 4
    expected = np.zeros((2, 3, 4))
    expected[1, 2, 0] = 2
    expected[..., 2] = np.array([[-3, 1, 5], [-1, 3, 5]]) / deviation
    expected[..., 3] = [[-1, -1, -1], [1, 1, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_r2_by_hand():
    """Against numpy's variance, and a table of its own: right, the mean, as far off on the other side, unknown."""
    true = np.float32([[[1, 1, 1, 0]], [[-1, -1, -1, 0]]])
    predicted = np.float32([[[1, 0, -1, 1]], [[-1, 0, 1, 1]]])
    np.testing.assert_array_equal(diagnostics.r2_by_step(predicted, true), [[1, 0, -3, np.nan]])
    rng = np.random.default_rng(0)
    true, error = rng.normal(size=(2, 50, 6, 3))
    true -= true.mean(axis=0)
    expected = [[1 - np.mean(error[:, h, d] ** 2) / np.var(true[:, h, d]) for d in range(3)] for h in range(6)]
    np.testing.assert_allclose(diagnostics.r2_by_step(true + error, true), expected, rtol=1e-12)


def make_true_model():
    """The counter itself as a model: it observes the state, moves it by the action, and its features are the state."""

    def observe(params, key, state, prev_action, embed, is_first):
        return embed, None

    return WorldModel(
        initial=lambda params, rows: jnp.zeros((rows, 2)),
        encode=lambda params, obs: obs["state"],
        observe=observe,
        imagine=lambda params, key, state, action: jnp.clip(state + jnp.clip(action, -1, 1), -4, 4),
        features=lambda params, state: state,
        reward=None,
        discount=None,
        decode=None,
        feature_shape=(2,),
    )


@pytest.fixture(scope="module")
def played():
    """(names, true [T, E, D], Step [T, E], ActionSpec) of two episodes of 31 rows."""
    env = envs.make("fake:counter", 2, 0, observe="image+state", size=8, episode_steps=30)
    player = make_player(make_random_actor(env.spec.action), 2, explore=True)
    steps, _ = play_episodes(env, player, np.zeros(1), jax.random.key(0)[None], Stopwatch())
    return *diagnostics.quantities(steps), steps, env.spec.action


def test_a_model_that_knows_the_state_explains_all(played):
    """At every step, whatever is a function of it; with actions one step late it does not."""
    names, true, steps, action_spec = played
    known = lambda heads, x: jnp.concatenate([x, 1 - jnp.abs(x).mean(axis=-1, keepdims=True)], axis=-1)
    network = types.SimpleNamespace(apply=known)
    predict = jax.jit(functools.partial(diagnostics.predict_quantities, make_true_model(), network, action_spec))
    predict = functools.partial(predict, None, None)
    predicted, inside = diagnostics.in_windows(predict, jax.random.key(1), steps, true, 25)
    assert names == ["state 0", "state 1", "reward"] and inside.shape == (2 * 7, 21, 3)
    np.testing.assert_allclose(diagnostics.r2_by_step(predicted, inside), np.ones((21, 3)), atol=1e-9)
    late = steps.replace(prev_action=np.roll(steps.prev_action, 1, axis=0))
    predicted, inside = diagnostics.in_windows(predict, jax.random.key(1), late, true, 25)
    r2 = diagnostics.r2_by_step(predicted, inside)
    assert np.all(r2[0, :2] == 1) and np.all(r2[1:, :2] < 0.999)


def test_the_network_learns_what_is_a_function_of_the_features(played):
    _, true, _, _ = played
    true = true.reshape(-1, 3)
    targets = np.stack([true[:, 0], true[:, 0] * true[:, 1] / 4], -1)
    network = MLP((64, 64), 2)
    heads = diagnostics.fit_heads(network, jax.random.key(2), true[:, :2], targets, 600)
    r2 = diagnostics.r2_by_step(network.apply(heads, true[:, :2])[:, None], targets[:, None])
    assert np.all(r2 > 0.98), r2


def test_gradients_of_the_network_do_not_reach_the_model():
    model, learner = rssm.make(rssm.RSSMConfig(reward_units=5, **TINY), SPEC)
    params = jax.jit(learner.init)(jax.random.key(0)).params
    steps = random_steps(SPEC, 1, 8)
    network = MLP((4,), 3)
    heads = network.init(jax.random.key(1), jnp.zeros((1, 10)))
    seen, actions = jax.tree.map(lambda x: x[:, :5], steps), steps.prev_action[:, 5:]

    def loss(params, heads):
        posterior = diagnostics.posterior_features(model, SPEC.action, params, jax.random.key(2), steps)
        imagined = diagnostics.open_loop_features(model, SPEC.action, params, jax.random.key(3), seen, actions)
        features = jnp.concatenate([posterior, imagined[0]])
        return diagnostics.heads_loss(network, heads, features, jnp.ones((12, 3)))

    of_model, of_heads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, heads)
    assert all(not np.any(x) for x in jax.tree.leaves(of_model))
    assert all(np.any(x) for x in jax.tree.leaves(of_heads))


def test_environments_without_a_state_are_refused():
    for task in ("ball:diffusing", "atari:Pong", "physics:cheetah_run"):
        with pytest.raises(UsageError, match=f"{task} shows no numbers of its state: only dmc and fake"):
            diagnostics.check_task(task)
    diagnostics.check_task("dmc:cheetah_run")


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_played(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.delattr(diagnostics, "load")
    ended = mains.call("planet.diagnostics", f"--workdir={tmp_path}")
    assert ended.code == 2 and "cannot write into" in ended.stderr and ended.stderr.count("\n") == 1
