"""The policy of PPO in an environment and in imagination, and a chain that it must solve there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.agents import ppo
from wmjax.nets.policy import VectorPolicy
from wmjax.run.collect import make_player
from wmjax.types import Step, WorldModel

KEY, OTHER_KEY = jax.random.key(0), jax.random.key(1)
M, ROWS = 3, 6000
NETWORK = VectorPolicy(M, ())
POLICY = {
    "params": {
        "logits": dict(kernel=np.float32([[0, 1, 2]]), bias=np.zeros(M, np.float32)),
        "value": dict(kernel=np.float32([[1]]), bias=np.zeros(1, np.float32)),
    }
}
PARAMS = dict(model=np.float32(0.5), policy=POLICY)
CONFIG = ppo.PPOConfig()


def make_light_model():
    """Its state [B, 1] is the brightness of the present image times `params`, and whatever else it is let know."""

    def encode(params, obs):
        return params * obs.astype(jnp.float32).mean(axis=(1, 2, 3))[:, None] / 255

    def observe(params, key, state, prev_action, embed, is_first):
        past = state + prev_action @ jnp.ones((M, 1)) + jnp.where(is_first, 0.0, 1.0)[:, None]
        return embed + past, None

    initial = lambda params, rows: jnp.zeros((rows, 1))
    return WorldModel(initial, encode, observe, None, lambda params, state: state, None, None, None, (1,))


def arrivals(rows, light=255, seed=0):
    """Step [E] with images of one brightness and everything else at random."""
    rng = np.random.default_rng(seed)
    return Step(
        prev_action=rng.integers(0, M, rows, dtype=np.int32),
        obs=np.full((rows, 2, 2, 1), light, np.uint8),
        reward=rng.normal(size=rows).astype(np.float32),
        discount=rng.integers(0, 2, rows).astype(np.float32),
        is_first=rng.integers(0, 2, rows).astype(bool),
        is_last=rng.integers(0, 2, rows).astype(bool),
    )


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def shares(action):
    return np.bincount(action, minlength=M) / len(action)


@pytest.mark.parametrize(("explore", "temperature"), [(True, 1.5), (False, 1.0)])
def test_actions_are_sampled_with_the_temperature_of_the_occasion(explore, temperature):
    actor = ppo.make_actor(make_light_model(), NETWORK, CONFIG)
    step = arrivals(ROWS)
    carry, action, logits = jax.jit(actor.act)(PARAMS, KEY, actor.initial(PARAMS, ROWS), step, explore)
    np.testing.assert_allclose(logits, np.tile(np.float32([0, 0.5, 1]), (ROWS, 1)), rtol=1e-6)
    assert action.shape == (ROWS,) and action.dtype == np.int32 and carry == ()
    expected = softmax(np.array([0, 0.5, 1]) / temperature)
    np.testing.assert_allclose(shares(action), expected, atol=0.02)  # 3 deviations; the temperatures differ by 0.07
    other = softmax(np.array([0, 0.5, 1]) / (2.5 - temperature))
    assert np.abs(shares(action) - other).max() > 0.04


def test_only_the_present_image_counts():
    actor = ppo.make_actor(make_light_model(), NETWORK, CONFIG)
    act = jax.jit(actor.act)
    _, one, logits = act(PARAMS, KEY, (), arrivals(50, 102), True)
    _, two, same = act(PARAMS, KEY, (), arrivals(50, 102, seed=1), True)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(logits, same)
    np.testing.assert_allclose(logits[0], [0, 0.2, 0.4], rtol=1e-6)
    _, other, _ = act(PARAMS, OTHER_KEY, (), arrivals(50, 102), True)
    assert (one != other).any()


def test_latents_and_actions_have_different_keys():
    """Logits that are the noise of their own sample would always be followed."""
    model = make_light_model()._replace(observe=lambda params, key, *_: (jax.random.gumbel(key, (200, M)), None))
    layers = dict(logits=dict(kernel=np.eye(M), bias=np.zeros(M)), value=dict(kernel=np.ones((M, 1)), bias=np.zeros(1)))
    params = dict(model=PARAMS["model"], policy={"params": jax.tree.map(np.float32, layers)})
    _, action, logits = ppo.make_actor(model, NETWORK, CONFIG).act(params, KEY, (), arrivals(200), False)
    assert (action != logits.argmax(-1)).any()


def test_a_player_takes_the_actor():
    player = make_player(ppo.make_actor(make_light_model(), NETWORK, CONFIG), 4, explore=True)
    params, keys = jax.tree.map(lambda x: np.stack([x, x]), PARAMS), jax.random.split(KEY, 2)
    step = jax.tree.map(lambda x: np.stack([x, x]), arrivals(4))
    carry = player.begin(params)
    for t in range(2):
        carry, action, extras = player.act(params, keys, np.int32(t), carry, step)
        assert extras == () and action.shape == (2, 4) and action.dtype == np.int32
    assert player.act._cache_size() == 1


@pytest.mark.parametrize(("settings", "temperature"), [({}, 1.0), (dict(temperature=0.25), 0.25)])
def test_policy_in_imagination(settings, temperature):
    features = np.full((ROWS, 1), 0.5, np.float32)
    action = np.asarray(ppo.make_policy(NETWORK, POLICY, **settings)(KEY, features))
    assert action.shape == (ROWS, M) and action.dtype == np.float32
    assert (action.sum(-1) == 1).all() and set(np.unique(action)) == {0, 1}
    np.testing.assert_allclose(action.mean(0), softmax(np.array([0, 0.5, 1]) / temperature), atol=0.02)


PLACES, HORIZON = 10, 5


def make_chain():
    """Ten places in a row, one-hot [B, 10]; action 1 goes right, 0 left. The last one pays 1 and ends the episode.

    What follows the end is a new episode from the first place. No rollout of 5 steps sees the way from there.
    """

    def imagine(params, key, state, action):
        here = jnp.argmax(state, axis=-1)
        there = jnp.clip(here + jnp.where(action[:, 1] > 0, 1, -1), 0, PLACES - 1)
        return jax.nn.one_hot(jnp.where(here == PLACES - 1, 0, there), PLACES)

    return WorldModel(
        initial=lambda params, rows: jax.nn.one_hot(jnp.zeros(rows, int), PLACES),
        encode=None,
        observe=None,
        imagine=imagine,
        features=lambda params, state: state,
        reward=lambda params, state: state[:, -1],
        discount=lambda params, state: 1 - state[:, -1],
        decode=None,
        feature_shape=(PLACES,),
    )


def test_ppo_solves_a_chain():
    """60 rounds of 16 rows x 5 steps from places at random, in one program.

    From the first place 21 steps are worth 2 at best: there after 9, again after 19. A value is at most 1, what is
    still to come in this episode.
    """
    model, network = make_chain(), VectorPolicy(2, (32,))
    learner = ppo.make(ppo.PPOConfig(learning_rate=3e-3, minibatch=32, bootstrap=True), network, (PLACES,))

    def one_round(state, key):
        start_key, imagine_key, update_key = jax.random.split(key, 3)
        start = jax.nn.one_hot(jax.random.randint(start_key, (16,), 0, PLACES), PLACES)
        rollout = ppo.dream(model, network, None, state.params, imagine_key, start, HORIZON)
        return learner.update(state, update_key, rollout)

    @jax.jit
    def mean_return(params):
        return ppo.dream(model, network, None, params, OTHER_KEY, model.initial(None, 200), 21).reward.sum(1).mean()

    state = learner.init(KEY)
    assert mean_return(state.params) < 0.3
    state, metrics = jax.jit(lambda state: jax.lax.scan(one_round, state, jax.random.split(KEY, 60)))(state)
    assert mean_return(state.params) > 1.7
    logits, value = network.apply(state.params, np.eye(PLACES, dtype=np.float32))
    assert (jax.nn.softmax(logits)[:-1, 1] > 0.9).all()
    np.testing.assert_allclose(value[:-1], 0.99 ** np.arange(PLACES - 2, -1, -1), atol=0.1)
    assert all(x.all() for x in metrics["grad_finite"].values()) and metrics["entropy"][-1] < metrics["entropy"][0]
