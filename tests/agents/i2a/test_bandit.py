"""A bandit whose image is noise: only the model knows the answer. Who reads its rollouts wins, nobody else can."""

import functools

import jax
import numpy as np
import pytest

from tests import tiny_i2a
from wmjax.agents import i2a
from wmjax.run import unroll

UPDATES, ROWS, STEPS = 300, 32, 4


def last_reward(policy, query):
    """Mean reward of the last 20 of UPDATES updates."""
    settings = dict(horizon=1 if policy in ("none", "uniform") else 2, discount=0.0, entropy=0.01, learning_rate=3e-3)
    env = tiny_i2a.make_bandit()
    config, agent = tiny_i2a.make_agent(policy, query, env.spec, **settings)
    learner = i2a.make(config, agent)
    player = unroll.Player(agent.initial, agent.look, functools.partial(i2a.choose, agent))
    act = functools.partial(unroll.unroll, env, player, count=STEPS)

    @jax.jit
    def run(key):
        state = learner.init(key)
        playing = unroll.begin(env, player, dict(model={}, agent=state.params), key, ROWS)

        def one(carry, key):
            state, playing = carry
            state, playing, _, steps = i2a.act_and_learn(act, learner.update, {}, state, playing, key)
            return (state, playing), steps.reward[1:].mean()

        return jax.lax.scan(one, (state, playing), jax.random.split(key, UPDATES))[1]

    return float(np.mean(run(jax.random.key(0))[-20:]))


@pytest.mark.parametrize("policy", ["uniform", pytest.param("distilled", marks=pytest.mark.slow), "learned"])
def test_who_reads_the_models_rollouts_finds_the_answer(policy):
    assert last_reward(policy, tiny_i2a.make_oracle()) > 0.95


def test_without_a_model_and_with_copies_of_the_state_it_stays_at_chance():
    query = tiny_i2a.make_oracle()
    copies = query._replace(model=query.model._replace(imagine=lambda params, key, state, action: state))
    chance = 1 / tiny_i2a.ACTIONS
    assert abs(last_reward("none", None) - chance) < 0.1
    assert abs(last_reward("uniform", copies) - chance) < 0.1
