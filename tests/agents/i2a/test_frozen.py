"""A frozen model's weights get no gradients, and its rollouts are not made a second time where acting kept them."""

import re

import jax
from jax.interpreters.partial_eval import dce_jaxpr

from tests import tiny_i2a
from wmjax.agents import i2a
from wmjax.models import state_space

CONFIG = state_space.StateSpaceConfig(
    kind="dssm_det", channels=8, encoder_width=8, decoder_width=8, blocks=(2, 1), reward_digits=3
)


def make(policy):
    """(learner, its state, an Unroll) of an agent and a state-space model."""
    model, model_learner = state_space.make(CONFIG, tiny_i2a.SPEC)
    begin = state_space.make_begin(CONFIG, tiny_i2a.SPEC)
    query = i2a.Query(model, begin.images, begin.begin)
    config, agent = tiny_i2a.make_agent(policy, query)
    learner = i2a.make(config, agent)
    state = jax.jit(learner.init)(jax.random.key(0))
    frozen = jax.jit(model_learner.init)(jax.random.key(1)).params
    return learner, state, tiny_i2a.make_unroll(agent, dict(model=frozen, agent=state.params))


def weight_gradients(text):
    """Names of the operations of a compiled program that sum products over rows, as gradients of weights do."""
    both = r"lhs_contracting_dims=\{0\}, rhs_contracting_dims=\{0\}.*op_name=\"([^\"]*)\""
    return " ".join(re.findall(both, text))


def test_no_weight_gradients_of_the_model_are_in_the_compiled_program():
    """The policy gradient flows through the rollouts, back to the rollout policy, and past the model's kernels."""
    learner, state, unroll = make("learned")
    names = weight_gradients(jax.jit(learner.update).lower(state, jax.random.key(0), unroll).compile().as_text())
    assert "Trunk" in names and "RolloutPolicy" in names
    assert "Transition" not in names and "LatentHead" not in names


def test_learning_from_kept_imaginations_asks_the_model_nothing():
    """Its parameters are no input of the update; learning to query rolls out again."""
    for policy, asks in (("uniform", False), ("learned", True)):
        learner, state, unroll = make(policy)

        def update(model, learner=learner, state=state, unroll=unroll):
            return learner.update(state, jax.random.key(0), unroll.replace(model=model))

        jaxpr = jax.make_jaxpr(update)(unroll.model)
        used = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))[1]
        assert any(used) == asks
