"""Each kind learns to predict rewards of an environment that it can understand; to see images: see `train`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax import envs, imagine
from wmjax.models import video
from wmjax.ops.axes import time_first

CONTEXT, H = 2, 6
T = CONTEXT + H
KEY = jax.random.key(0)


def episodes(rows, seed):
    """(EnvSpec, Step [rows, 13]) of fake:counter under random actions, one episode in each row."""
    env = envs.make("fake:counter", rows, seed)
    rng = np.random.default_rng(seed)
    steps = [env.reset()]
    while not steps[-1].is_last.any():
        steps.append(env.step(rng.uniform(-1, 1, (rows, 2)).astype(np.float32)))
    return env.spec, jax.tree.map(lambda *x: np.stack(x, axis=1), *steps)


def chunks(steps, key, batch):
    """Step [batch, T] from random places of Step [rows, time]."""
    rows, time = steps.reward.shape
    row_key, start_key = jax.random.split(key)
    row = jax.random.randint(row_key, (batch, 1), 0, rows)
    place = jax.random.randint(start_key, (batch, 1), 0, time - T + 1) + jnp.arange(T)[None]
    return jax.tree.map(lambda x: jnp.asarray(x)[row, place], steps)


def train(config, spec, steps, updates, batch=16):
    """(model, parameters, means of metrics of each 20 updates) after updates on chunks of the steps."""
    model, learner = video.make(config, spec)

    @jax.jit
    def phase(state, keys):
        def update(state, key):
            state, metrics = learner.update(state, key, chunks(steps, key, batch))
            return state, {name: metrics[name] for name in ("image_loss", "reward_loss")}

        return jax.lax.scan(update, state, keys)

    state, metrics = jax.jit(learner.init)(KEY), []
    for keys in jax.random.split(KEY, (updates // 20, 20)):
        state, more = phase(state, keys)
        metrics.append(jax.tree.map(lambda x: float(x.mean()), more))
    return model, state.params, metrics


def open_loop(model, params, spec, steps):
    """(images [B, H, X, Y, C] in [0, 1], rewards [B, H]) predicted after the context of Step [B, T], actions given."""
    seen = jax.tree.map(lambda x: x[:, :CONTEXT], steps)
    actions = time_first(jnp.asarray(steps.prev_action))[CONTEXT:]
    state, _, _ = imagine.filter_steps(model, params, KEY, seen, spec.action)
    images = imagine.open_loop(model, params, KEY, state, actions).image
    rewards, _ = imagine.predict_rewards(model, params, KEY, state, actions)
    return time_first(images), rewards.T


def r2(predicted, truth):
    return 1 - np.square(predicted - truth).mean() / truth.var()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ot_or", "ot_lr"])
def test_rewards_of_new_episodes_are_learned(kind):
    """In the minutes that a test has; both go on falling."""
    sizes = dict(filters_divisor=8, reward_widths=(32, 32), horizon=H)
    config = video.VideoConfig(kind=kind, sampling_updates=300, adam_epsilon=1e-8, **sizes)
    spec, steps = episodes(64, seed=0)
    model, params, _ = train(config, spec, steps, 300)
    new = jax.tree.map(lambda x: x[:, :T], episodes(64, seed=1)[1])
    images, rewards = jax.jit(lambda params: open_loop(model, params, spec, new))(params)
    assert r2(rewards, new.reward[:, CONTEXT:]) > 0.5
    truth = np.float32(new.obs[:, CONTEXT:]) / 255
    still = np.repeat(np.float32(new.obs[:, [CONTEXT - 1]]) / 255, H, axis=1)
    assert np.square(images - truth).mean() < 0.4 * np.square(still - truth).mean()
