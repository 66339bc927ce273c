"""Settings of the environment models that are refused by name."""

import pytest

from tests.tiny_state_space import configured
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kind="ssm"), "kind 'ssm'"),
        (dict(compute_dtype="float16"), "compute_dtype 'float16': choose one of float32, bfloat16"),
        (dict(channels=12), "channels 12"),
        (dict(channels=0), "channels 0"),
        (dict(encoder_width=10), "encoder_width 10"),
        (dict(decoder_width=0), "decoder_width 0"),
        (dict(decoder_width=8, blocks=(2, 4)), "decoder_width 8: must be a multiple of 16"),
        (dict(blocks=(2,)), "blocks (2,)"),
        (dict(blocks=(0, 1)), "blocks (0, 1)"),
        (dict(blocks=(4, 17)), "blocks (4, 17)"),
        (dict(reward_digits=0), "reward_digits 0"),
        (dict(order=17), "order 17"),
        (dict(jump=0), "jump 0"),
        (dict(learning_rate=0.0), "learning_rate 0.0"),
        (dict(learning_rate=float("nan")), "learning_rate nan"),
        (dict(clip_norm=0.0), "clip_norm 0.0"),
        (dict(pad_context=-0.1), "pad_context -0.1"),
        (dict(pad_context=1.5), "pad_context 1.5"),
        (dict(pad_context=float("nan")), "pad_context nan"),
        (dict(pad_context=0.5, kind="ar"), "pad_context 0.5: not for kind 'ar'"),
        (dict(latent_std=0.0), "latent_std 0.0"),
        (dict(latent_std=float("inf")), "latent_std inf"),
        (dict(contrast=-1.0), "contrast -1.0"),
        (dict(contrast=float("nan")), "contrast nan"),
        (dict(last_layer_scale=-1.0), "last_layer_scale -1.0"),
        (dict(kl_anneal_target=-0.1), "kl_anneal_target -0.1"),
        (dict(kl_anneal_target=1.0), "kl_anneal_target 1.0"),
        (dict(kl_anneal_target=float("nan")), "kl_anneal_target nan"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(UsageError) as error:
        configured(**settings)
    assert message in str(error.value) and "\n" not in str(error.value)
