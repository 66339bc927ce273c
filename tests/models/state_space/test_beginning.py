"""States made anew from the newest images: those of an episode's start, every jump-th image, none of the others."""

import functools

import jax
import numpy as np
import pytest

from tests.fakes import SPEC, normal, randomised
from tests.tiny_state_space import KEY, B, C, batch_of, configured
from wmjax import imagine
from wmjax.models import state_space
from wmjax.ops.axes import fold, unfold_like
from wmjax.types import UsageError

GRID = (2, 2, C)
assert_close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5))


@functools.cache
def made(jump):
    """(model, params, images, jitted begin) of a rar, whose states have embeddings too that matter."""
    config = configured(kind="rar", jump=jump)
    model, learner = state_space.make(config, SPEC)
    params = randomised(jax.eval_shape(learner.init, KEY).params, 0.12)
    images, begin = state_space.make_begin(config, SPEC)
    return model, params, images, jax.jit(begin)


def test_states_are_those_of_an_episodes_start():
    """Of its first image alone, in place of those before it, then of the first three; one imagines from both alike."""
    model, params, images, begin = made(1)
    assert images == 3
    batch = batch_of(3)
    batch.is_first[:, 0] = True

    @jax.jit
    def filtered(params, batch):
        embed = unfold_like(model.encode(params, fold(batch.obs)), batch.obs)
        _, states, _ = imagine.filter_steps(model, params, KEY, batch, SPEC.action)
        return embed, states, imagine.begin(model, params, KEY, batch.obs[:, 0], SPEC.action)

    embed, states, first = filtered(params, batch)
    padded = begin(params, np.repeat(embed[:, :1], 3, axis=1))
    whole = jax.tree.map(lambda x: x[:, 2], states)
    assert (np.abs(padded.state - whole.state) > 1e-3).any()
    ahead = jax.jit(lambda state: model.imagine(params, KEY, state, normal(B, 2)))
    for found, expected in ((padded, first), (begin(params, embed), whole)):
        expected = expected.replace(context=expected.context.replace(seen=found.context.seen))
        assert_close(found, expected)
        assert_close(ahead(found), ahead(expected))


def test_a_jumpy_models_images_are_as_far_apart_as_its_steps():
    _, params, images, begin = made(3)
    assert images == 7
    embeds = normal(B, 7, *GRID)
    assert_close(begin(params, embeds), made(1)[-1](params, embeds[:, [0, 3, 6]]))
    with pytest.raises(AssertionError):
        begin(params, embeds[:, 1:])


def test_states_made_of_actions_are_not_offered():
    with pytest.raises(UsageError, match="'ar'") as error:
        state_space.make_begin(configured(kind="ar"), SPEC)
    assert "\n" not in str(error.value)
    for kind in set(state_space.KINDS) - {"ar"}:
        assert state_space.make_begin(configured(kind=kind, jump=2), SPEC).images == 5
