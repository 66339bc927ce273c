"""Each design of the trade-offs study overfits one episode: it predicts, open loop, what it was trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax import envs, imagine
from wmjax.models import reward_only, rssm, video
from wmjax.ops.axes import fold, time_first

HORIZON = 6
KEY = jax.random.key(0)
LATENT = dict(
    stochastic=8, deterministic=32, hidden=32, encoder_widths=(8, 16), decoder_widths=(16,), decoder_hidden=32
)
WEIGHTS = dict(free_nats=0.1, image_bits=8, image_scale=30.0, reward_scale=30.0)
IN_IMAGES = dict(filters_divisor=16, horizon=HORIZON, sampling_updates=100, adam_epsilon=1e-8)
FROM_IMAGES = dict(reward_from="images", reward_horizon=HORIZON, reward_widths=(16, 16))
DESIGNS = {  # name: make, config, rows shown, updates
    "r": (reward_only.make, reward_only.RewardOnlyConfig(horizon=HORIZON, dropout=0.0), 1, 300),
    "ot_or": (video.make, video.VideoConfig(kind="ot_or", reward_widths=(16, 16), **IN_IMAGES), 2, 300),
    "ot_lr": (video.make, video.VideoConfig(kind="ot_lr", **IN_IMAGES), 2, 200),
    "lt_lr": (rssm.make, rssm.RSSMConfig(**LATENT, **WEIGHTS), 2, 800),
    "lt_or": (rssm.make, rssm.RSSMConfig(**FROM_IMAGES, **LATENT, **WEIGHTS), 2, 800),
}


def episode(rows):
    """(EnvSpec, Step [1, rows]): the beginning of an episode of fake:counter under random actions."""
    env, rng = envs.make("fake:counter", 1, 0), np.random.default_rng(0)
    steps = [env.reset()] + [env.step(rng.uniform(-1, 1, (1, 2)).astype(np.float32)) for _ in range(rows - 1)]
    return env.spec, jax.tree.map(lambda *x: np.stack(x, axis=1), *steps)


def explained(predicted, truth):
    """R2 of [H, ...], of what changes over time."""
    return 1 - np.square(np.asarray(predicted) - truth).mean() / np.var(truth, axis=0).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_an_episode_is_overfit(name):
    make, config, shown, updates = DESIGNS[name]
    spec, steps = episode(shown + HORIZON)
    model, learner = make(config, spec)
    steps = jax.tree.map(jnp.asarray, steps)
    state = jax.jit(learner.init)(KEY)
    update = lambda state, key: (learner.update(state, key, steps)[0], None)
    state, _ = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys))(state, jax.random.split(KEY, updates))

    seen = jax.tree.map(lambda x: x[:, :shown], steps)
    start, _, _ = imagine.filter_steps(model, state.params, KEY, seen, spec.action)
    actions = time_first(steps.prev_action)[shown:]
    rewards, _ = imagine.predict_rewards(model, state.params, KEY, start, actions)
    shares = dict(rewards=explained(rewards[:, 0], steps.reward[0, shown:]))
    if name != "r":
        states = imagine.open_loop(model, state.params, KEY, start, actions)
        images = model.decode(state.params, fold(states))  # [H, X, Y, C], of one row
        shares["images"] = explained(images, steps.obs[0, shown:] / 255 - 0.5)
    print(name, {part: round(float(share), 3) for part, share in shares.items()})
    assert all(share > 0.9 for share in shares.values()), shares
