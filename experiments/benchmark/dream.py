"""Smaller World Models at the paper's sizes (Table 5): updates of its model, imagined episodes, a round of PPO."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from wmjax.agents import ppo
from wmjax.models import vq_convlstm
from wmjax.nets.policy import GridPolicy
from wmjax.report.benchmark import Work, compiled
from wmjax.types import ActionSpec, Array, EnvSpec, Params, State, Step

SPEC = EnvSpec(jax.ShapeDtypeStruct((96, 96, 1), np.uint8), ActionSpec(6, True, 0, 5))  # Pong
IMAGES, ROWS, TIME = 40, 4, 11  # batches of the autoencoder and of the dynamics
EPISODES, HORIZON = 16, 50


def works(preset: str) -> Iterator[Work]:
    """Every size is the paper's, with both presets."""
    rng = np.random.default_rng(0)
    model, learner = vq_convlstm.make(vq_convlstm.VQConvLSTMConfig(), SPEC)
    updates = vq_convlstm.make_updates(vq_convlstm.VQConvLSTMConfig(), SPEC)
    state, key = jax.jit(learner.init)(jax.random.key(0)), jax.random.key(1)
    images = jax.device_put(rng.integers(0, 256, (IMAGES, *SPEC.obs_shape)).astype(np.uint8))
    yield compiled(f"autoencoder, {IMAGES}", updates.autoencoder, (state, key, images), {"frames": IMAGES})

    lead, false = (ROWS, TIME), np.zeros((ROWS, TIME), bool)
    batch = Step(
        prev_action=rng.integers(0, SPEC.action.size, lead).astype(np.int32),
        obs=rng.integers(0, 256, (*lead, *SPEC.obs_shape)).astype(np.uint8),
        reward=rng.choice([-1.0, 0.0, 1.0], lead).astype(np.float32),
        discount=np.ones(lead, np.float32),
        is_first=false,
        is_last=false,
    )
    args = (state, key, jax.device_put(batch))
    yield compiled(f"dynamics, {ROWS} x {TIME}", updates.dynamics, args, {"frames": ROWS * TIME})

    start = model.initial(state.params, EPISODES)
    network = GridPolicy(actions=SPEC.action.size)
    agent = ppo.make(ppo.PPOConfig(), network, model.feature_shape)
    policy = jax.jit(agent.init)(jax.random.key(2))

    def dream(params: Params, policy_params: Params, key: Array, start: State) -> Any:
        return ppo.dream(model, network, params, policy_params, key, start, HORIZON)

    amounts, name = {"states": EPISODES * HORIZON}, f"{EPISODES} x {HORIZON}"
    yield compiled(f"imagination, {name}", dream, (state.params, policy.params, key, start), amounts)
    rollout = jax.jit(dream)(state.params, policy.params, key, start)
    yield compiled(f"PPO round, {name}", agent.update, (policy, key, rollout), {"decisions": EPISODES * HORIZON})
