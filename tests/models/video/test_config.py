"""Settings of the image-predicting models that are refused by name."""

import jax
import pytest

from tests.fakes import SPEC
from wmjax.models import video
from wmjax.planners import CEMConfig, ShootingConfig, make_cem, make_random_shooting
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (dict(kind="lt_lr"), "'lt_lr'.*ot_or, ot_lr"),
        (dict(reward_gradient="none"), "'none'.*stopped, shared"),
        (dict(compute_dtype="float16"), "'float16'.*float32, bfloat16"),
        (dict(filters_divisor=3), "filters_divisor 3"),
        (dict(filters_divisor=64), "filters_divisor 64"),
        (dict(horizon=0), "horizon 0"),
        (dict(reward_widths=()), "reward_widths"),
        (dict(latent_channels=-1), "latent_channels -1"),
        (dict(learning_rate=0.0), "learning_rate 0.0"),
    ],
)
def test_refusals_name_the_setting(settings, named):
    with pytest.raises(UsageError, match=named):
        video.VideoConfig(**settings)


def test_images_that_cannot_be_halved_three_times_are_refused():
    with pytest.raises(UsageError, match="20x16.*divisible by 8"):
        video.make(video.VideoConfig(), SPEC._replace(obs=jax.ShapeDtypeStruct((20, 16, 3), SPEC.obs_dtype)))


def test_planners_must_look_as_far_as_rewards_are_predicted():
    model, _ = video.make(video.VideoConfig(horizon=3, reward_widths=(4,)), SPEC)
    step_by_step, _ = video.make(video.VideoConfig(kind="ot_lr", horizon=3), SPEC)
    for make, config in ((make_cem, CEMConfig), (make_random_shooting, ShootingConfig)):
        make(model, SPEC.action, config(horizon=3))
        make(step_by_step, SPEC.action, config(horizon=5))
        with pytest.raises(UsageError, match="planner horizon 5.*3 steps"):
            make(model, SPEC.action, config(horizon=5))
