"""How many parameters the environment models have, at the paper's size and at others."""

import jax
import numpy as np

from tests.tiny_state_space import KEY
from wmjax.models import state_space
from wmjax.models.state_space.model import init_params
from wmjax.types import ActionSpec, EnvSpec


def conv(kernel, inputs, outputs):
    return kernel * kernel * inputs * outputs + outputs


def counts(config, spec):
    shapes = jax.eval_shape(lambda: init_params(KEY, config, spec))
    return {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in shapes.items()}


def test_numbers_of_parameters_at_the_papers_size():
    """Figs. 9 to 14: 18 actions, images of 200 x 160 x 3, states of 25 x 20 x 64; 8 digits, a sign and a zero."""
    spec = EnvSpec(jax.ShapeDtypeStruct((200, 160, 3), np.uint8), ActionSpec(18, True, 0, 17))
    head = conv(3, 32, 32) + conv(3, 32, 64)
    res = conv(5, 32, 32) + conv(3, 32, 64)
    by_hand = dict(
        encoder=conv(3, 48, 16) + conv(5, 16, 16) + conv(3, 16, 64) + conv(3, 256, 32) + res,
        start=conv(1, 192, 64) + 2 * conv(3, 64, 64),
        prior=conv(1, 64 + 18, 32) + head,
        transition=conv(3, 64 + 32 + 18, 32) + res + conv(3, 64, 32) + conv(3, 64 + 32, 32) + res,
        decoder=conv(1, 96, 32) + res + conv(3, 16, 64) + conv(3, 64, 64) + conv(1, 64, 48),
        reward=conv(3, 96, 24) + (25 * 20 * 24 + 1) * 10,
        posterior=conv(1, 64 + 32 + 32 + 64 + 18, 32) + head,
    )
    assert by_hand["prior"] == 2_656 + 9_248 + 18_496 and by_hand["reward"] == 20_760 + 120_010
    found = {kind: counts(state_space.StateSpaceConfig(kind=kind), spec) for kind in state_space.KINDS}
    assert found["sssm"] == found["dssm_vae"] == by_hand
    del by_hand["posterior"]
    assert found["dssm_det"] == by_hand
    assert found["rar"] == by_hand | dict(transition=by_hand["transition"] + 9 * 64 * 32)
    assert found["ar"] == by_hand | dict(start=by_hand["start"] + 36 * 64)
    assert found["vae"].keys() == {"encoder", "start", "prior", "decoder", "reward", "posterior"}
    assert found["vae"]["prior"] == by_hand["prior"] - 18 * 32


def test_widths_of_encoder_and_decoder_are_their_own():
    """Fig. 11 and Fig. 10 with a quarter of the channels: the layers on images are as wide as they were."""
    spec = EnvSpec(jax.ShapeDtypeStruct((80, 64, 3), np.uint8), ActionSpec(18, True, 0, 17))
    config = state_space.StateSpaceConfig(channels=16, encoder_width=64, decoder_width=32)
    found = counts(config, spec)
    res = conv(5, 32, 32) + conv(3, 32, 16)
    assert found["encoder"] == conv(3, 48, 16) + conv(5, 16, 16) + conv(3, 16, 64) + conv(3, 256, 32) + res
    coarse = conv(1, 24, 16) + conv(5, 16, 16) + conv(3, 16, 32)
    assert found["decoder"] == coarse + conv(3, 8, 32) + conv(3, 32, 32) + conv(1, 32, 48)
    others = counts(state_space.StateSpaceConfig(channels=16), spec)
    assert {name for name in found if found[name] != others[name]} == {"decoder"}
