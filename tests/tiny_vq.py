"""Tiny Smaller World Models."""

from wmjax.models.vq_convlstm import VQConvLSTMConfig

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


def configured(**settings):
    return VQConvLSTMConfig(**vars(TINY) | settings)
