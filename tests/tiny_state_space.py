"""Tiny environment models, and chunks for them."""

import jax
import numpy as np

from tests.fakes import SPEC, random_steps
from wmjax.models import state_space

C, B, T, DIGITS = 8, 2, 7, 3
KEY = jax.random.key(0)


def configured(**settings):
    widths = dict(channels=C, encoder_width=C, decoder_width=C)
    return state_space.StateSpaceConfig(**widths | dict(reward_digits=DIGITS) | settings)


def batch_of(time=T, spec=SPEC, rows=B):
    """Chunks of noise with whole rewards, all zero now and then."""
    batch = random_steps(spec, rows, time)
    return batch.replace(reward=np.rint(2 * batch.reward), is_first=np.zeros((rows, time), bool))
