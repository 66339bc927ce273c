"""Settings of Smaller World Models that are refused by name."""

import jax
import numpy as np
import pytest

from wmjax.models.vq_convlstm import VQConvLSTMConfig, make
from wmjax.types import ActionSpec, EnvSpec, UsageError

TINY = VQConvLSTMConfig(
    encoder_widths=(4, 8),
    decoder_widths=(8, 4),
    codes=6,
    code_size=3,
    cells=(4, 5),
    kernel=3,
    reward_channels=2,
    reward_hidden=8,
    context=3,
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(encoder_widths=(4,)), "as many of one"),
        (dict(kernel=4), "kernel 4"),
        (dict(codebook_decay=1.0), "codebook_decay 1.0"),
        (dict(cells=()), "cells"),
        (dict(cells=(4, 0)), "cells (4, 0)"),
        (dict(codes=0), "codes 0"),
        (dict(context=0), "context 0"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(UsageError) as error:
        VQConvLSTMConfig(**vars(TINY) | settings)
    assert message in str(error.value)


def test_refuses_images_that_do_not_halve():
    with pytest.raises(UsageError, match="multiples of 16"):
        make(VQConvLSTMConfig(), EnvSpec(jax.ShapeDtypeStruct((100, 96, 1), np.uint8), ActionSpec(3, True, 0, 2)))
