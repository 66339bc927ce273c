"""The study's command: what it refuses, and what its page begins with."""

from types import SimpleNamespace

import pytest

from experiments.trade_offs import study
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set=model.hiden=8"], "hiden"),
        (["--tasks=cheeta_run"], "cheetah_run"),
        (["--parts=crp"], "crop"),
        (["--tasks="], "--tasks"),
        (["--set=task=fake:counter"], "give --tasks instead"),
        (["--set=family=rssm"], "give --designs instead"),
        (["--designs=lt"], "lt_lr"),
        (["--designs=ot_or"], "rewards"),
        (["--designs=r,lt_lr", "--parts=offline"], "ot_or"),
    ],
)
def test_what_no_run_would_take_is_refused_before_the_folder_is_the_studys(flags, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        study.main(["study", f"--folder={tmp_path}", "--preset=smoke", "--parts=rewards", "--seeds=1", *flags])
    assert not (tmp_path / study.DEFINITION).exists()


def test_a_folder_of_another_preset_is_refused_and_left_as_it_is(tmp_path):
    before = '{"preset": "cpu", "settings": []}'
    (tmp_path / study.DEFINITION).write_text(before)
    with pytest.raises(UsageError, match="preset cpu -> smoke; choose another --folder"):
        study.main(["study", f"--folder={tmp_path}", "--preset=smoke", "--parts=rewards", "--seeds=1"])
    assert [path.read_text() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize(("preset", "settings", "steps"), [("cpu", [], 500), ("paper", ["env.episode_steps=100"], 100)])
def test_the_page_tells_where_episodes_are_cut_short(preset, settings, steps, tmp_path):
    options = SimpleNamespace(preset=preset, set=settings, seeds=1, tasks=["cheetah_run"], designs=["r"], parts=[])
    assert f"cut after {steps} control steps" in study.page(options, tmp_path, {})[2]
    assert not study.shortened(SimpleNamespace(preset="paper", set=[], tasks=["cheetah_run"], designs=["r"]))


def test_the_page_takes_settings_that_only_the_chosen_design_has(tmp_path):
    options = dict(preset="cpu", set=["model.hidden=64"], seeds=1, tasks=["cheetah_run"], designs=["lt_lr"], parts=[])
    assert "cut after" in study.page(SimpleNamespace(**options), tmp_path, {})[2]


def test_costs_without_scores_say_where_table_7_is(tmp_path):
    spent = dict(parameters=1, update_gflop=1.0, update_ms=1.0, decision_gflop=1.0, decision_ms=1.0)
    told = study.part_lines("cost", {}, "cheetah_run", tmp_path, dict(r=spent))
    assert told[-1] == "Scores by cost (Table 7): with the part online." and told[-3].startswith("| r")


def test_faults_stand_beside_their_designs():
    variants = study.grid.variants("smoke")
    assert set(variants["online"]) == set(study.grid.MAIN)  # no fault is trained where only the designs are asked for
    assert set(study.of_designs(variants["faults"], ["lt_or", "r"])) == {"lt_or", "lt_or_leak"}
