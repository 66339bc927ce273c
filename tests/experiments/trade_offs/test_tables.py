"""The study's tables, from runs that were written by hand."""

import json

import numpy as np
import pytest

from experiments.planet.agent import make_agent
from experiments.planet.offline import SHOWN
from experiments.trade_offs import config, cost, offline, tables
from experiments.trade_offs.cells import MAIN, Cell, Variant
from wmjax.storage import checkpoint
from wmjax.types import Step

COST = dict(action_repeat=4, decision_gflop=1.0, update_gflop=10.0, decision_ms=2.0, update_ms=20.0)


def run(folder, name, returns, seed=0, design=None, correlation=0.0, image_loss=1.0, reward_loss=1.0):
    """A Cell whose run was evaluated after 10, 20, ... episodes of 100 decisions and 5 updates each.

    Before them one line of one random episode. In the last line losses are ten times as high, and in it alone the
    correlation is the given one.
    """
    cell = Cell(name, Variant(design or name), "cheetah_run", seed, folder / f"{name}_seed_{seed}")
    cell.folder.mkdir()
    rows = [
        {"episodes": 10 * i, "env_steps": 400 + 4000 * i, "updates": 50 * i, "eval/return_mean": value}
        | {"time/act": 2.0, "time/update": 1.0, "train/image_loss": image_loss, "train/reward_loss": reward_loss}
        | {"model_error/correlation_2": 0.0, "model_error/correlation_12": 0.5}
        for i, value in enumerate(returns, start=1)
    ]
    rows[-1] |= {"model_error/correlation_12": correlation}
    rows[-1] |= {"train/image_loss": 10 * image_loss, "train/reward_loss": 10 * reward_loss}
    rows.insert(0, dict(episodes=1, env_steps=400, updates=0))
    (cell.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return cell


def test_equal_compute_takes_the_last_evaluation_within_the_budget(tmp_path):
    cheap = run(tmp_path, "r", [1.0, 2.0])
    dear = run(tmp_path, "ot_or", [10.0, 20.0, 30.0])
    costs = dict(r=COST, ot_or=COST | dict(decision_gflop=2.0, update_gflop=10.0))
    table = tables.equal_compute(dict(r=[cheap], ot_or=[dear]), costs)
    assert "20 episodes" in table[2] and "3,000 GFLOP" in table[2] and "| 6 s" in table[2]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[4:]]
    assert cells == [["r", "2", "2", "2"], ["ot_or", "20", "10", "20"]]  # 2,500 GFLOP after ten episodes, then 5,000


def test_no_evaluation_within_the_budget(tmp_path):
    costs = dict(r=COST, ot_or=COST | dict(decision_gflop=9.0))
    table = tables.equal_compute(dict(r=[run(tmp_path, "r", [1.0])], ot_or=[run(tmp_path, "ot_or", [5.0])]), costs)
    assert table[-1].split("|")[3].strip() == "-"


def test_seconds_are_told_where_costs_are_timed_alone(tmp_path):
    cost = {name: number for name, number in COST.items() if not name.endswith("_ms")}
    table = tables.equal_compute(dict(r=[run(tmp_path, "r", [1.0])]), dict(r=cost))
    assert "with the part cost" in table[2] and [x.strip() for x in table[-1].split("|")[3:5]] == ["1", "-"]


def test_costs_are_of_100_updates_and_250_decisions():
    *_, row = cost.lines(dict(r=COST | dict(parameters=81_553)))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:2] + cells[3:5] + cells[6:8] == ["r", "81,553", "10.00", "2.0", "1.00", "0.5"]


def test_the_time_of_a_decision_is_that_of_one_iteration_times_their_number(monkeypatch):
    made = []
    monkeypatch.setattr(cost, "make_agent", lambda *args: made.append(args[0].planner.iterations) or make_agent(*args))
    monkeypatch.setattr(cost.benchmark, "gflops", lambda *args: 1.0)
    monkeypatch.setattr(cost.benchmark, "compiled", lambda name, *args: name)
    monkeypatch.setattr(cost.benchmark, "measure", lambda name, times: dict(ms=dict(decision=3.0, update=7.0)[name]))
    found = cost.measure("fake:counter", "r", "smoke", ["planner.iterations=5"])
    assert made == [5, 1] and found["decision_ms"] == 15.0 and found["update_ms"] == 7.0


def test_a_score_is_divided_by_the_seconds_of_its_own_episode():
    """Of `cpu` it is shorter than the published ones, 125 decisions."""
    table = cost.worth(dict(r=COST | dict(decisions=125)), dict(r=10.0), "cheetah_run")
    assert [cell.strip() for cell in table[-1].split("|")[1:-1]] == ["r", "40.00", "20.40", "20.40"]


def test_faults_are_compared_with_their_designs_seed_by_seed(tmp_path):
    values = dict(ot_or=(5.0, 6.0), ot_or_late=(1.0, 4.0), lt_or=(2.0, 2.0), lt_or_leak=(2.0, 5.0))
    cells = {name: [run(tmp_path, name, [x], seed) for seed, x in enumerate(own)] for name, own in values.items()}
    late, leak = (line.split("|") for line in tables.faults(cells)[2:])
    assert late[1].strip() == "ot_or_late" and late[4].strip() == "-4, -2" and late[3].strip().startswith("-3 (")
    assert leak[2].strip() == "reward_leak=True" and leak[4].strip() == "0, 3"


def test_model_errors_are_those_of_the_longest_horizon(tmp_path):
    table = tables.model_errors(dict(r=[run(tmp_path, "r", [1.0, 2.0], correlation=0.25)]))
    assert [cell.strip() for cell in table[-1].split("|")[1:-1]] == ["r", "0.25", "-"]


def test_sharing_is_unshared_less_shared_whatever_the_default(tmp_path):
    cells = {}
    for name, value in dict(lt_lr=3.0, ot_or=5.0, lt_lr_stopped=4.0, ot_or_shared=1.0).items():
        cells[name] = [run(tmp_path, name, [value], design=name[:5])]
    table = "\n".join(tables.sharing(cells, "cheetah_run", tmp_path))
    rows = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in table.splitlines() if "|" in line}
    assert rows["lt_lr"] == "1" and rows["ot_or"] == "4"


def test_sizes_are_ranked_by_the_medians_of_their_losses(tmp_path):
    """Scores rise as the images' loss falls and the rewards' rises; of ot_or there are two sizes, too few."""
    cells = {}
    for i, name in enumerate(("lt_lr", "lt_lr_2", "lt_lr_3", "ot_or", "ot_or_2")):
        losses = dict(image_loss=3.0 - i, reward_loss=1.0 + i) if i < 3 else {}
        cells[name] = [run(tmp_path, name, [9.0, 9.0, float(i)], design=name[:5], **losses)]
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in tables.scaling(cells, "cheetah_run", tmp_path)
    ]
    assert ["lt_lr_2", "2", "2", "1"] in table
    assert ["rho (95% interval)", "-1.00 (-1.00 to 1.00)", "1.00 (-1.00 to 1.00)"] in table
    assert ["rho (95% interval)", "-", "-"] in table and ["sizes", "2", "2"] in table
    assert (tmp_path / "scale_lt_lr_cheetah_run.png").stat().st_size > 0


SEEDS = ((0, 3.0), (1, -3.0))


def test_scores_are_ranked_by_the_longest_horizons_measure(tmp_path):
    cells = {}
    for i, name in enumerate(MAIN):  # two seeds of a design are one pair
        cells[name] = [run(tmp_path, name, [10.0 * i + off], seed, correlation=0.1 * i - off) for seed, off in SEEDS]
    told = next(line for line in tables.rankings(cells) if "rank correlation" in line)
    assert "1.00 (1.00 to 1.00)" in told and "0.88" in told and " 5 " in told


def test_collected_rewards_leave_out_the_first_rows(tmp_path):
    rewards = np.arange(101, dtype=np.float32)[:, None]
    cell = run(tmp_path, "r", [1.0])
    (cell.folder / "replay").mkdir()
    np.savez(cell.folder / "replay" / "0.npz", reward=rewards - 1, is_first=rewards == 0)
    np.testing.assert_array_equal(tables.collected_rewards(cell.folder), np.arange(100))
    *_, row = tables.reward_distribution(dict(r=[cell]), tmp_path / "collected.png")
    assert [each.strip() for each in row.split("|")[1:-1]] == ["r", "49.50", "89.10", "98.01", "99.00"]
    assert (tmp_path / "collected.png").stat().st_size > 0


def summaries(errors, digests):
    """Results of two seeds of each design. errors: median reward error by design; digests: of each seed's pool."""
    return {
        design: {
            seed: dict(
                pools=dict(train=dict(digest=digest)),
                newest={"eval/reward_error_median": error * (1 + seed), "eval/r2_horizon": 0.5},
                score=dict(percentile_90=1 / error, mean=0.0, episodes=3),
            )
            for seed, digest in enumerate(digests)
        }
        for design, error in errors.items()
    }


def test_offline_errors_are_compared_seed_by_seed():
    found = summaries(dict(zip(MAIN, [0.4, 0.2, 0.1, 0.05, 0.4], strict=True)), ["aaa", "bbb"])
    table = "\n".join(offline.scores(found, "cheetah_run"))
    ratios = [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| ot_or") and "to" in line]
    assert ratios[-1] == "0.50"
    assert "0.88" in table and "-0.98" in table  # five designs; the published correlation


def test_offline_scores_less_online_ones_beside_table_5():
    found = summaries(dict(r=0.1, lt_lr=0.25), ["aaa", "bbb"])  # 90th percentiles of 10 and 4
    table = offline.differences(found, dict(r={0: 4.0, 1: 5.0}, lt_lr={0: 5.0, 1: 4.0}), "cheetah_run")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[2:]]
    assert [row[2:] for row in cells] == [["6, 5", "115"], ["-1, 0", "76"]] and cells[0][1].startswith("6 (")


def test_published_scores_have_their_deviations(tmp_path):
    cells = {name: [run(tmp_path, name, [1.0])] for name in ("r", "r_conv")}
    told = [line.split("|")[4].strip() for line in tables.returns(cells, "cheetah_run", tmp_path / "a.png")[-2:]]
    assert told == ["102 ± 23", "-"]


def test_ratios_of_errors_are_geometric_means():
    """Logarithms 0, log 2, 2 log 2: Student's t with two degrees of freedom reaches 4.3027 standard errors."""
    row = offline.against_rewards(dict(r=dict.fromkeys(range(3), 1.0), lt_lr={0: 1.0, 1: 2.0, 2: 4.0}))[-1]
    half = np.exp(4.3027 * np.log(2) / np.sqrt(3))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["2.00", f"{2 / half:.2f} to {2 * half:.2f}"]


def test_designs_that_learned_from_different_episodes_are_not_compared():
    found = summaries(dict(r=0.1), ["aaa", "bbb"]) | summaries(dict(lt_lr=0.1), ["aaa", "ccc"])
    with pytest.raises(AssertionError, match="different episodes"):
        offline.digests(found)


@pytest.mark.parametrize(
    ("rewards", "bound"),
    [
        (([1.0, 2.0], [3.0, 4.0, 5.0]), 3.0),
        (([1.0, 2.0], [1.0, 2.0], [3.0, 4.0, 5.0]), 3.0),  # runs of one seed begin with the same random episodes
        (([0.0, 0.0], [0.0, 4.0, 2.0]), 2.0),  # sparse: nothing is below the median
        (([0.0, 0.0], [0.0]), 1.0),
    ],
)
def test_the_bound_of_optimism_is_the_median_of_the_pool(rewards, bound, tmp_path):
    folders = [tmp_path / str(i) for i in range(len(rewards))]
    for folder, own in zip(folders, rewards, strict=True):
        zeros = np.zeros((len(own) + 1, 1), np.float32)
        reward, is_first = np.float32([0.0, *own])[:, None], np.arange(len(own) + 1)[:, None] == 0
        checkpoint.append_rows(folder, 0, Step(zeros, zeros, reward, zeros + 1, is_first, zeros > 0))
    assert offline.bound(tuple(folders)) == bound


def test_measurements_that_are_not_numbers_are_told_as_nan():
    """Of an evaluation without any reward nothing is explained, nothing is above the bound."""
    found = summaries(dict.fromkeys(MAIN, 0.1), ["aaa"])
    for runs in found.values():
        runs[0]["newest"] |= {"eval/r2_horizon": None, "eval/optimism": None}
    told = [line for line in offline.scores(found, "cheetah_run") + offline.optimism(found) if "| r " in line]
    assert [line.count("nan") for line in told] == [1, 2]


@pytest.mark.parametrize(("preset", "episodes"), [("paper", 100), ("cpu", 10)])
def test_offline_scores_are_of_many_episodes_unless_asked_otherwise(preset, episodes, tmp_path):
    cell = Cell("r", Variant("r"), "cheetah_run", 0, tmp_path / "offline_r_seed_0")
    job = offline.make_training([cell])(cell, preset, ["evaluation.episodes=4"])
    asked = [word for word in job.command if "evaluation.episodes" in word]
    assert asked == [f"--config.evaluation.episodes={episodes}", "--config.evaluation.episodes=4"]


def test_a_pool_is_of_one_seed_and_task_and_cut_for_optimism_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "bound", lambda pool: 1.5)
    places = [("cheetah_run", 0), ("cheetah_run", 1), ("walker_walk", 0)]
    online = [Cell("r", Variant("r"), task, seed, tmp_path / task / f"r_seed_{seed}") for task, seed in places]
    for part, cut in (("offline", []), ("optimism", ["--below=1.5"])):
        cell = offline.make_cells(part, online)[1]
        words = offline.make_training(online)(cell, "cpu", []).command
        own = tmp_path / "cheetah_run" / "r_seed_1"
        assert [word for word in words if word.startswith("--below")] == cut
        assert {f"--train={own}", f"--test={own}", "--updates=1500", "--every=750"} < {*words}
        assert f"--workdir={own.with_name(f'{part}_r_seed_1')}" in words


def test_heat_maps_are_of_both_pools(tmp_path, monkeypatch):
    cells = {name: [Cell(name, Variant(name), "cheetah_run", 0, tmp_path / name)] for name in ("r", "lt_lr")}
    for i, (cell,) in enumerate(cells.values()):
        cell.folder.mkdir()
        arrays = dict(train=np.eye(2) * i, eval=np.ones((2, 2)) * i, edges=np.arange(3.0))
        np.savez(cell.folder / offline.PREDICTIONS, **arrays)
        (cell.folder / "config.json").write_text('{"offline": {"below": 1.0}}')
    offline.heat_maps(tmp_path / "a.png", cells)
    assert (tmp_path / "a.png").stat().st_size > 0
    monkeypatch.setattr(offline.pictures, "write_heat_maps", lambda path, counts, edges, bound: found.append(counts))
    found = []
    offline.heat_maps(tmp_path / "a.png", cells)
    np.testing.assert_array_equal(found[0]["train"]["lt_lr"], np.eye(2))
    np.testing.assert_array_equal(found[0]["eval"]["lt_lr"], np.ones((2, 2)))


def test_pieces_of_optimism_are_as_long_as_the_longest_chunk_of_a_design():
    assert max(design.shown for design in config.DESIGNS.values()) == SHOWN


@pytest.mark.parametrize(("last", "found"), [(0.2, 0.2), (None, np.nan)])
def test_a_measure_of_evaluations_is_the_last_one_even_where_it_is_null(last, found, tmp_path):
    rows = [{"eval/regret_12": 0.9}, {"eval/regret_12": last}, {"train/loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.testing.assert_equal(
        tables.measure_of_run(Cell("r", Variant("r"), "fake:counter", 0, tmp_path), "eval/regret"), found
    )
