"""Settings of PlaNet's models that are refused by name."""

import jax
import pytest

from tests.fakes import SPEC
from tests.tiny_rssm import KEY, SIZES
from wmjax.models import rssm
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (dict(kind="lstm"), "'lstm'.*rssm, ssm, rnn, drnn"),
        (dict(activation="tanh"), "'tanh'.*relu, elu"),
        (dict(image_bits=0), "image_bits 0"),
        (dict(image_bits=9), "image_bits 9"),
        (dict(overshooting_distance=0), "overshooting_distance 0"),
        (dict(kind="rnn", overshooting_distance=2), "rnn.*overshooting_distance=1"),
        (dict(stochastic=0), "stochastic 0"),
        (dict(min_std=0.0), "min_std 0.0"),
        (dict(learning_rate=-1.0), "learning_rate -1.0"),
        (dict(reward_from="image"), "'image'.*features, images"),
        (dict(reward_gradient="off"), "'off'.*shared, stopped"),
        (dict(image_fit="mask"), "'mask'.*crop, resize"),
        (dict(image_side=-1), "image_side -1"),
        (dict(reward_horizon=0), "reward_horizon 0"),
        (dict(reward_widths=()), "reward_widths"),
        (dict(reward_from="images", image_side=0), "reward_from 'images' .* image_side above 0"),
        (dict(reward_leak=True), "reward_leak .* reward_from=images"),
    ],
)
def test_refusals_name_the_setting(settings, named):
    with pytest.raises(UsageError, match=named):
        rssm.RSSMConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "named"),
    [
        (dict(encoder_widths=(4, 8), decoder_widths=(8,)), (20, 20, 3), "20x20"),
        (dict(encoder_widths=(4, 8, 8), decoder_widths=(8,)), (16, 16, 3), "16x16"),
        (dict(encoder_widths=(4, 8), decoder_widths=(8, 8)), (16, 16, 3), "widths"),
        (dict(encoder_widths=(4, 8), decoder_widths=(8,), reward_from="images"), (16, 16, 3), "too small for 4"),
        (dict(encoder_widths=(4, 8), decoder_widths=(8,), image_side=17), (16, 16, 3), "image_side 17: choose 0 to 16"),
    ],
)
def test_images_that_do_not_fit_are_refused(settings, shape, named):
    """At the latest when the parameters are made, which is before anything is run."""
    with pytest.raises(UsageError, match=named):
        _, learner = rssm.make(
            rssm.RSSMConfig(**SIZES, **settings), SPEC._replace(obs=jax.ShapeDtypeStruct(shape, SPEC.obs_dtype))
        )
        jax.eval_shape(learner.init, KEY)
