"""Tiny models of PlaNet, and chunks for them."""

import jax

from tests.fakes import SPEC, random_steps, randomised
from wmjax.models import rssm

B, T, Z, U = 2, 6, 4, 6
KEY = jax.random.key(0)
SIZES = dict(stochastic=Z, deterministic=U, hidden=5, decoder_hidden=8, reward_units=5)
WIDTHS = dict(encoder_widths=(4, 8), decoder_widths=(8,))
SCALES = dict(kl_scale=0.7, image_scale=0.01, reward_scale=2.0, overshooting_scale=0.3)


def configured(**settings):
    return rssm.RSSMConfig(**{**SIZES, **WIDTHS, **SCALES, **settings})


def chunks(spec=SPEC):
    """Random chunks; in row 1 an episode begins at time 3."""
    batch = random_steps(spec, B, T)
    batch.is_first[1, 3] = True
    return batch


def random_params(learner):
    return randomised(jax.eval_shape(learner.init, KEY).params, 0.3)
