"""Every design is a config of PlaNet's main, with the paper's numbers of parameters at its size."""

import math

import jax
import pytest

from experiments.planet.agent import make_agent, read_settings
from experiments.trade_offs import cells, config
from experiments.trade_offs.config import get_config
from wmjax.types import ActionSpec, EnvSpec, UsageError

IMAGES = dict(paper=64, cpu=32, smoke=16)
COUNTS = dict(  # Table 6; less ot_or's and lt_or's inputs of rewards, which are left out
    r=81_553, ot_or=8_341_308, ot_lr=8_380_893, lt_lr=5_511_520, lt_or=5_289_819, r_conv=57_212, r_ll=1_715_965
)


def agent_of(design, preset):
    """The agent of a config, for six actions."""
    size = IMAGES[preset]
    spec = EnvSpec(jax.ShapeDtypeStruct((size, size, 3), "uint8"), ActionSpec(6, False, -1.0, 1.0))
    return make_agent(read_settings(get_config(f"cheetah_run,{design},{preset}")), spec)


@pytest.mark.parametrize("design", config.DESIGNS)
def test_parameters_at_paper_size(design):
    state = jax.eval_shape(agent_of(design, "paper").learner.init, jax.random.key(0))
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)) == COUNTS[design]


@pytest.mark.parametrize("design", ["lt_or", "ot_or"])
def test_another_horizon_than_a_models_is_refused(design):
    config = get_config(f"cheetah_run,{design},cpu")
    assert config.planner.horizon == 8 and 8 in (config.model.get("horizon"), config.model.get("reward_horizon"))
    config.planner.horizon = 6
    spec = EnvSpec(jax.ShapeDtypeStruct((32, 32, 3), "uint8"), ActionSpec(6, False, -1.0, 1.0))
    with pytest.raises(UsageError, match="planner horizon 6: .* 8 steps"):
        make_agent(read_settings(config), spec)


@pytest.mark.parametrize(
    ("argument", "named"),
    [("cheetah_run,lt_lr", "task"), ("cheetah_run,lt_rl,cpu", "lt_lr"), ("cheetah_run,r,gpu", "paper")],
)
def test_unknown_names_are_refused(argument, named):
    with pytest.raises(UsageError, match=named):
        get_config(argument)


@pytest.mark.parametrize("preset", config.PRESETS)
def test_every_variant_is_of_settings_that_exist(preset):
    """And a name stands for one variant in all parts, since it stands for one run."""
    named = {}
    for part in cells.variants(preset).values():
        for name, variant in part.items():
            assert named.setdefault(name, variant) == variant
    for variant in named.values():
        config = get_config(f"cheetah_run,{variant.design},{preset}")
        before = config.to_dict()
        for setting in variant.settings:
            key, _, value = setting.partition("=")
            block, field = key.split(".")
            config[block][field] = type(config[block][field])(value)
        read_settings(config)
        assert not variant.settings or config.to_dict() != before


def test_evaluations_are_kept_and_compared_with_the_simulator_where_there_is_one():
    kept = [get_config(f"{task},r,smoke").evaluation for task in ("reacher_easy", "fake:counter")]
    assert all(each.keep for each in kept) and [each.model_error for each in kept] == [True, False]


@pytest.mark.parametrize("preset", ["paper", "cpu"])
def test_designs_have_the_loss_of_planets_paper(preset):
    """PlaNet's own `cpu` has another: the KL's gradient in the prior is ten times that in the posterior."""
    assert config.get_config(f"cheetah_run,lt_lr,{preset}").model.prior_scale == 1.0


def test_sizes_are_those_of_tables_14_and_15():
    found = cells.variants("paper")["scale"]
    assert len([name for name in found if name.startswith("lt_lr")]) == 9 and "lt_lr_50_200" in found
    assert [name for name in found if name.startswith("ot_or")] == [
        "ot_or",
        *(f"ot_or_filters_{n}" for n in (2, 4, 8, 16, 32)),
    ]
    sides = [name for name in cells.variants("paper")["crop"] if "crop" in name]
    assert sides == [f"lt_lr_crop_{side}" for side in (56, 48, 32, 16, 8)]


def test_smoke_has_every_part_and_one_size_of_each():
    found = {part: list(own) for part, own in cells.variants("smoke").items()}
    assert found.keys() == cells.variants("paper").keys()
    assert found["crop"] == ["lt_lr", "lt_lr_crop_2", "r_ll"] and found["scale"] == ["lt_lr_3_4", "ot_or"]
    assert len({name for own in found.values() for name in own}) == 16
