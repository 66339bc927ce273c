"""Settings of Smaller World Models that are refused by name."""

import jax
import numpy as np
import pytest

from tests.tiny_vq import configured
from wmjax.models.vq_convlstm import VQConvLSTMConfig, make
from wmjax.types import ActionSpec, EnvSpec, UsageError


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
        (dict(latent="binary"), "latent 'binary'"),
        (dict(dimensions=3), "dimensions 3"),
        (dict(encoder_kernel=3), "encoder_kernel 3"),
        (dict(predictor="transformer"), "predictor 'transformer'"),
        (dict(likelihood="normal"), "likelihood 'normal'"),
        (dict(restart_below=-1.0), "restart_below -1.0"),
        (dict(latent="continuous", predictor="autoregressive"), "autoregressive"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(UsageError) as error:
        configured(**settings)
    assert message in str(error.value)


def test_refuses_images_that_do_not_halve():
    with pytest.raises(UsageError, match="multiples of 16"):
        make(VQConvLSTMConfig(), EnvSpec(jax.ShapeDtypeStruct((100, 96, 1), np.uint8), ActionSpec(3, True, 0, 2)))
