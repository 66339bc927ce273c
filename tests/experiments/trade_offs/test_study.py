"""The study's command: what it refuses, what it trains, and its page."""

import json
import pathlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.planet import pool
from experiments.trade_offs import study
from wmjax.run import cli, jobs
from wmjax.storage import checkpoint
from wmjax.types import Step, UsageError

SPENT = dict(parameters=1, action_repeat=4, decisions=8, decision_gflop=1.0, update_gflop=9.0)
FAST = dict(decision_ms=1.0, update_ms=2.0)


def collected(seed, rows=9):
    """A Step [rows, 1] of one episode."""
    rng, zeros = np.random.default_rng(seed), np.zeros((rows, 1), np.float32)
    reward = rng.uniform(size=(rows, 1)).astype(np.float32)
    obs, is_first = np.zeros((rows, 1, 4, 4, 3), np.uint8), np.arange(rows)[:, None] == 0
    return Step(zeros.astype(np.int32), obs, reward, zeros + 1, is_first, np.zeros((rows, 1), bool))


def write_run(job):
    """Writes what the study reads of a finished run: small numbers of its name's own."""
    job.folder.mkdir(parents=True, exist_ok=True)
    number = sum(map(ord, job.folder.name))
    losses = {"train/image_loss": number % 7 + 1, "train/reward_loss": number % 5 + 1}
    errors = {"model_error/correlation_4": number % 3 / 4, "model_error/regret_4": 0.5}
    rows = [dict(episodes=2, env_steps=64, updates=0)] + [
        dict(episodes=i, env_steps=32 * i, updates=4 * i) | {"eval/return_mean": float(number % 11)} | losses | errors
        for i in (4, 6)
    ]
    (job.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint.append_rows(job.folder, 0, collected(number))
    summary = dict(finished=True)
    if "experiments.planet.offline" in job.command:
        newest = {"eval/reward_error_median": number % 9 + 1, "eval/r2_horizon": 0.5, "eval/optimism": 0.1}
        summary |= dict(newest=newest, score=dict(percentile_90=number % 10, mean=1.0, episodes=2))
        digest = pool.digest(study.offline.collected(tuple(map(pathlib.Path, learned(job)))))
        summary |= dict(pools=dict(train=dict(digest=digest)))
        (job.folder / "config.json").write_text('{"offline": {"below": null}}')
        np.savez(job.folder / study.offline.PREDICTIONS, train=np.eye(2), eval=np.eye(2), edges=np.arange(3.0))
    (job.folder / "summary.json").write_text(json.dumps(summary))


def learned(job):
    """The folders whose episodes an offline run learns."""
    return next(word for word in job.command if word.startswith("--train=")).removeprefix("--train=").split(",")


def study_of(folder, monkeypatch, *flags, codes=()):
    """(exit code, the jobs that were started by folder, the lines of the page) of a study of runs written by hand.

    codes: {name of a run: its exit code}, where not 0.
    """
    codes, started = dict(codes), {}

    def run_all(trainings, slots, tries):
        for job in trainings:
            code = codes.get(job.folder.name, 0)
            write_run(job) if not code else job.folder.mkdir(parents=True)
            started[job.folder.name] = job
            yield job, jobs.Ended(code, "error: update 9: loss is not finite" if code else "", 0)

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.setattr(study, "check_agents", lambda settings: None)
    monkeypatch.setattr(study.cost, "measure", lambda *args: SPENT | (FAST if args[-1] else {}))
    common = ["--preset=smoke", "--tasks=fake:counter", "--seeds=2", f"--folder={folder}"]
    code = cli.run(study.main, ["study", *common, *flags])
    page = pathlib.Path(folder, "study.md")
    return code, started, page.read_text().split("\n") if page.exists() else []


def section(page, part):
    """The lines of a page below the title of a part."""
    first = page.index(f"## fake:counter: {part}")
    after = [i for i, line in enumerate(page) if line.startswith("## ") and i > first]
    return page[first + 1 : after[0] if after else None]


def names(lines):
    """The first cells of the rows of tables."""
    return [line.split("|")[1].strip() for line in lines if line.startswith("| ")]


def test_the_page_has_every_part_and_the_same_command_trains_nothing_again(tmp_path, monkeypatch):
    code, started, page = study_of(tmp_path, monkeypatch)
    assert code == 0 and len(started) == 2 * (16 + 5 + 5)
    assert [line for line in page if line.startswith("## ")] == [f"## fake:counter: {part}" for part in study.PARTS]
    assert page[2].startswith("Means over seeds 0 to 1") and "diverged" not in "".join(page)
    for part, named in study.grid.variants("smoke").items():
        own = names(section(page, part))
        rows = dict(faults=study.grid.FAULTS, sharing=study.grid.MAIN[1:]).get(part, named)
        assert all(name in own for name in rows), part
    for part in (*study.OFFLINE, "cost"):
        assert all(name in names(section(page, part)) for name in study.grid.MAIN), part
    drawn = {line.split("(")[1].rstrip(")") for line in page if line.startswith("![")}
    assert len(drawn) == 9 and all((tmp_path / name).stat().st_size > 0 for name in drawn)
    assert study_of(tmp_path, monkeypatch, "--parts=offline,rewards")[:2] == (0, {})


def test_a_run_that_diverges_is_told_and_left_out(tmp_path, monkeypatch):
    """Also of the pool of its seed; of differences seed by seed the other seeds are left."""
    ended = ["ot_or_seed_0", "lt_or_leak_seed_0", "lt_or_leak_seed_1", "offline_r_seed_1"]
    codes = dict.fromkeys(ended, cli.NOT_FINITE)
    parts = "--parts=online,faults,offline"
    code, started, page = study_of(tmp_path, monkeypatch, parts, codes=codes)
    assert code == 0 and len(started) == 2 * (5 + 2 + 5)
    for name in codes:
        assert f"fake:counter/{name} diverged and is left out: error: update 9: loss is not finite" in page
    online = section(page, "online")
    assert next(line for line in online if line.startswith("| ot_or")).count(",") == 0  # one seed
    assert names(section(page, "faults")).count("lt_or_leak") == 0
    late = next(line for line in section(page, "faults") if line.startswith("| ot_or_late"))
    assert "(" not in late
    pools = [learned(started[f"offline_lt_lr_seed_{seed}"]) for seed in (0, 1)]
    assert [len(each) for each in pools] == [4, 5] and not any("ot_or" in folder for folder in pools[0])
    ratios = [line for line in section(page, "offline") if line.startswith("| ot_or")]
    assert len(ratios) == 3 and "- " in ratios[1]


def test_an_offline_run_that_has_learned_other_episodes_than_there_are_is_refused(tmp_path, monkeypatch, capsys):
    assert study_of(tmp_path, monkeypatch, "--parts=offline")[0] == 0
    again = tmp_path / "fake:counter" / "r_seed_1"
    checkpoint.append_rows(again, 0, collected(0))
    study.offline.collected.cache_clear()
    capsys.readouterr()
    code, started, _ = study_of(tmp_path, monkeypatch, "--parts=offline")
    told = capsys.readouterr().err
    assert code == 2 and not started and told.count("\n") == 1
    old = [str(again.with_name(f"offline_{name}_seed_1")) for name in study.grid.MAIN]
    assert f"error: {', '.join(old)}: learned other episodes" in told and "remove what is named" in told
    for folder in old:
        shutil.rmtree(folder)
    code, started, _ = study_of(tmp_path, monkeypatch, "--parts=offline")
    assert code == 0 and [str(job.folder) for job in started.values()] == old


def test_a_part_all_of_whose_runs_diverged_is_told(tmp_path, monkeypatch):
    codes = {f"{name}_seed_{seed}": cli.NOT_FINITE for name in study.grid.MAIN for seed in (0, 1)}
    code, started, page = study_of(tmp_path, monkeypatch, "--parts=online,offline,cost", codes=codes)
    assert code == 0 and started.keys() == codes.keys()
    assert all(section(page, part)[1] == "Every run diverged." for part in ("online", "offline"))


def test_a_run_that_fails_in_another_way_ends_the_study(tmp_path, monkeypatch, capsys):
    code, _, page = study_of(tmp_path, monkeypatch, "--parts=rewards", codes=dict(r_seed_0=2))
    assert code == 2 and not page and "r_seed_0: training ended with exit code 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set=model.hiden=8"], "hiden"),
        (["--tasks=cheeta_run"], "cheetah_run"),
        (["--parts=crp"], "crop"),
        (["--tasks="], "--tasks=: give at least one"),
        (["--tasks=cheetah_run,walker_walk,cheetah_run"], "--tasks=.*: cheetah_run is given twice"),
        (["--parts=crop,crop"], "--parts=crop,crop: crop is given twice"),
        (["--designs="], "--designs=: give at least one of r, ot_or"),
        (["--set=task=fake:counter"], "give --tasks instead"),
        (["--set=family=rssm"], "give --designs instead"),
        (["--designs=lt"], "lt_lr"),
        (["--designs=ot_or"], "rewards"),
        (["--designs=r,lt_lr", "--parts=offline"], "ot_or"),
        (["--tasks=fake:countr,fake:counter", "--designs=r"], "^fake:countr: unknown fake task 'countr'"),
        (["--tasks=fake:counter", "--designs=r", "--set=env.size=12"], "^r: image size 12x12 is too small"),
        (["--parts=cost", "--set=model.nosuch=1"], "nosuch"),
        (["--parts=cost", "--tasks=fake:counter", "--set=env.size=12"], "^r: image size 12x12"),
        (["--parts=cost", "--designs=r_ll"], "none of them is in the part cost"),
    ],
)
def test_what_no_run_would_take_is_refused_before_the_folder_is_the_studys(flags, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        study.main(["study", f"--folder={tmp_path}", "--preset=smoke", "--parts=rewards", "--seeds=1", *flags])
    assert not (tmp_path / study.DEFINITION).exists()


def test_a_folder_of_another_preset_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "check_agents", lambda settings: None)
    before = '{"preset": "cpu", "settings": []}'
    (tmp_path / study.DEFINITION).write_text(before)
    with pytest.raises(UsageError, match="preset cpu -> smoke; choose another --folder"):
        study.main(["study", f"--folder={tmp_path}", "--preset=smoke", "--parts=rewards", "--seeds=1"])
    assert [path.read_text() for path in tmp_path.iterdir()] == [before]


def test_the_sides_that_are_predicted_are_shares_of_the_images_that_are_asked_for(tmp_path, monkeypatch):
    code, started, _ = study_of(tmp_path, monkeypatch, "--parts=crop,resize", "--set=env.size=32")
    assert code == 0 and {name for name in started if "_4_" in name} == {
        f"lt_lr_{fit}_4_seed_{seed}" for fit in ("crop", "resize") for seed in (0, 1)
    }
    assert "--config.model.image_side=4" in started["lt_lr_crop_4_seed_0"].command


@pytest.mark.parametrize(("preset", "settings", "steps"), [("cpu", [], 500), ("paper", ["env.episode_steps=100"], 100)])
def test_the_page_tells_where_episodes_are_cut_short(preset, settings, steps, tmp_path):
    options = SimpleNamespace(preset=preset, set=settings, seeds=1, tasks=["cheetah_run"], designs=["r"], parts=[])
    assert f"cut after {steps} control steps" in study.page(options, tmp_path, {}, {})[2]
    assert not study.shortened("r", SimpleNamespace(preset="paper", set=[], tasks=["cheetah_run"]))


@pytest.mark.parametrize("flags", [["--designs=lt_lr", "--parts=online"], ["--parts=crop"]])
def test_the_page_takes_settings_that_only_the_chosen_design_has(flags, tmp_path, monkeypatch):
    assert study_of(tmp_path, monkeypatch, "--set=model.free_nats=2.0", *flags)[0] == 0


def test_costs_without_scores_say_where_table_7_is(tmp_path):
    spent = dict(parameters=1, update_gflop=1.0, update_ms=1.0, decision_gflop=1.0, decision_ms=1.0)
    told = study.part_lines("cost", {}, "cheetah_run", tmp_path, dict(r=spent))
    assert told[-1] == "Scores by cost (Table 7): with the part online." and told[-3].startswith("| r")


def test_faults_stand_beside_their_designs():
    variants = study.grid.variants("smoke")
    assert set(variants["online"]) == set(study.grid.MAIN)  # no fault is trained where only the designs are asked for
    assert set(study.of_designs(variants["faults"], ["lt_or", "r"])) == {"lt_or", "lt_or_leak"}
