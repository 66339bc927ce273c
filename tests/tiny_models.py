"""A tiny model and learner of every kind, by name: to add a model, add one line to MODELS."""

from tests.fakes import DISCRETE_SPEC, SPEC
from wmjax.models import reward_only, rssm, state_space, video, vq_convlstm


def tiny_rssm(spec, **settings):
    """Wide enough that no layer of relus is dead in some row; no free nats, for what is free has no gradient."""
    sizes = dict(stochastic=4, deterministic=6, hidden=12, decoder_hidden=8, reward_units=12)
    widths = dict(encoder_widths=(4, 8), decoder_widths=(8,))
    return spec, *rssm.make(rssm.RSSMConfig(**sizes, **widths, free_nats=0.0, **settings), spec)


def tiny_vq(spec, **settings):
    sizes = dict(codes=6, code_size=3, cells=(4, 5), kernel=3, reward_channels=4, reward_hidden=16, context=2)
    config = vq_convlstm.VQConvLSTMConfig(encoder_widths=(4, 8), decoder_widths=(8, 4), **sizes, **settings)
    return spec, *vq_convlstm.make(config, spec)


def tiny_state_space(spec, **settings):
    config = state_space.StateSpaceConfig(channels=8, encoder_width=8, decoder_width=8, reward_digits=3, **settings)
    return spec, *state_space.make(config, spec)


def tiny_reward_only(spec, **settings):
    config = reward_only.RewardOnlyConfig(encoder_widths=(4, 8), code=8, lstm_units=8, **settings)
    return spec, *reward_only.make(config, spec)


def tiny_video(spec, **settings):
    config = video.VideoConfig(filters_divisor=32, reward_widths=(4,), context=4, horizon=2, **settings)
    return spec, *video.make(config, spec)


ELU_OVERSHOOTING = dict(activation="elu", overshooting_distance=3)
FOR_GAMES = dict(contrast=16.0, latent_std=0.1, kl_anneal_target=0.5)
MODELS = {  # name -> (environment spec, WorldModel, Learner): compiled, for every test
    "rssm": lambda: tiny_rssm(SPEC, **ELU_OVERSHOOTING),
    "ssm_discrete": lambda: tiny_rssm(DISCRETE_SPEC, kind="ssm", **ELU_OVERSHOOTING),
    "vq_convlstm": lambda: tiny_vq(SPEC),
    "vq_convlstm_vector": lambda: tiny_vq(SPEC, latent="continuous", dimensions=1),
    "vq_convlstm_autoregressive": lambda: tiny_vq(DISCRETE_SPEC, predictor="autoregressive", encoder_kernel=2),
    "sssm": lambda: tiny_state_space(SPEC, kind="sssm", **FOR_GAMES),
    "dssm_det": lambda: tiny_state_space(DISCRETE_SPEC, kind="dssm_det"),
    "ar": lambda: tiny_state_space(SPEC, kind="ar"),
    "vae": lambda: tiny_state_space(SPEC, kind="vae"),
    "reward_only": lambda: tiny_reward_only(SPEC),
    "ot_lr": lambda: tiny_video(SPEC, kind="ot_lr"),
}
VARIANTS = {  # of the models above: shapes alone here, numbers where it is said
    "rssm_relu": lambda: tiny_rssm(SPEC),  # equal to numpy: models/rssm/test_learner.py
    "rnn": lambda: tiny_rssm(SPEC, kind="rnn"),  # likewise
    "drnn": lambda: tiny_rssm(SPEC, kind="drnn", overshooting_distance=3),  # likewise
    "rssm_image_rewards": lambda: tiny_rssm(SPEC, reward_from="images", reward_horizon=2, reward_widths=(4,)),
    "reward_only_conv": lambda: tiny_reward_only(DISCRETE_SPEC, kind="conv", horizon=2),
    "vq_convlstm_discrete": lambda: tiny_vq(DISCRETE_SPEC),  # equal to loops: models/vq_convlstm/test_learner.py
    "dssm_vae": lambda: tiny_state_space(SPEC, kind="dssm_vae"),  # equal to numpy: models/state_space/test_model.py
    "rar": lambda: tiny_state_space(SPEC, kind="rar"),  # likewise
    "ot_or": lambda: tiny_video(DISCRETE_SPEC),  # gradients and a horizon's rewards: models/video/test_model.py
}
