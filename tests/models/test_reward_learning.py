"""Models that predict the rewards of whole sequences learn those of a task with known ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax import envs, imagine
from wmjax.agents.random import make_random_actor
from wmjax.models import reward_only, rssm
from wmjax.ops.axes import time_first
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.stopwatch import Stopwatch

EPISODES, HELD_OUT, BATCH, HORIZON = 512, 64, 32, 6
EVERY = 500  # updates between measurements
LT_OR = dict(reward_from="images", reward_horizon=HORIZON, reward_widths=(32, 32))
SIZES = dict(stochastic=16, deterministic=64, hidden=64, decoder_hidden=128, free_nats=1.0, image_bits=8)
WIDTHS = dict(encoder_widths=(16, 32), decoder_widths=(32,))
SCALES = dict(image_scale=100.0, kl_scale=3.0, reward_scale=300.0)  # an image is a few bright pixels
MODELS = {  # name -> make, config, updates, least R2
    "R": (reward_only.make, reward_only.RewardOnlyConfig(), 1500, 0.9),
    "LT_OR": (rssm.make, rssm.RSSMConfig(**SIZES, **WIDTHS, **LT_OR, **SCALES), 3000, 0.6),
}


def share_explained(model, params, steps, spec):
    """R2 of the rewards 1 .. HORIZON, predicted from image 0 and the actions. steps: Step [B, T]."""
    first = jax.tree.map(lambda x: x[:, 0], steps.obs)
    state = imagine.begin(model, params, jax.random.key(0), first, spec.action)
    actions = time_first(steps.prev_action[:, 1 : 1 + HORIZON])
    predicted, _ = imagine.predict_rewards(model, params, jax.random.key(1), state, actions)
    true = time_first(steps.reward[:, 1 : 1 + HORIZON])
    return 1 - ((predicted - true) ** 2).mean() / true.var()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_rewards_of_counter_are_learned(name):
    """In episodes that were not trained on."""
    make, config, updates, least = MODELS[name]
    env = envs.make("fake:counter", EPISODES + HELD_OUT, 0, size=16)
    player = make_player(make_random_actor(env.spec.action), EPISODES + HELD_OUT, explore=True)
    steps, _ = play_episodes(env, player, np.zeros(1), jax.random.key(0)[None], Stopwatch())
    steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), steps)  # [B, T]
    model, learner = make(config, env.spec)
    held_out = jax.tree.map(lambda x: x[EPISODES:], steps)

    def update(state, key):
        row_key, start_key, update_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (BATCH,), 0, EPISODES)
        start = jax.random.randint(start_key, (), 0, steps.reward.shape[1] - HORIZON)
        chunk = lambda x: jax.lax.dynamic_slice_in_dim(jnp.asarray(x)[rows], start, HORIZON + 1, axis=1)
        return learner.update(state, update_key, jax.tree.map(chunk, steps))[0], None

    @jax.jit
    def phase(state, key):
        state, _ = jax.lax.scan(update, state, jax.random.split(key, EVERY))
        return state, share_explained(model, state.params, held_out, env.spec)

    state, found = jax.jit(learner.init)(jax.random.key(1)), []
    for key in jax.random.split(jax.random.key(2), updates // EVERY):
        state, share = phase(state, key)
        found.append(round(float(share), 3))
    print(f"R2 of {name} after every {EVERY} updates: {found}")
    assert found[-1] > least
