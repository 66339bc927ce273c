"""Sweeps over a stub main: what is started again and what is not, the ledger, killed drivers, refusals."""

import csv
import json
import os
import signal
import subprocess

import pytest

from launch import sweep
from tests.launch.driving import MAIN, drive, starts, wait_for
from tests.mains import ROOT
from wmjax.run import cli, jobs, lifecycle
from wmjax.run.members import make_members
from wmjax.storage import files


def call(folder, *words):
    return cli.run(sweep.main, ["sweep", f"--folder={folder}", *words])


def ended(folder, name):
    return jobs.read_ended(folder / name)


def test_a_product_runs_once_and_then_nothing_is_left(tmp_path, capsys):
    folder = tmp_path / "new" / "sweep"
    words = ("--set=model.kind=rssm,ssm", "--zip=seed=0:2", "--zip=env.size=(1,2),(3,)", "--jobs=2")
    assert call(folder, *MAIN, *words) == 0
    names = [f"kind_{kind}_seed_{seed}_size_{size}" for kind in ("rssm", "ssm") for seed, size in ((0, "1x2"), (1, 3))]
    assert starts(folder) == dict.fromkeys(names, 1)
    told = json.loads((folder / f"{names[0]}.starts").read_text())["flags"]
    assert told["config.env.size"] == "(1,2)" and told["config.model.kind"] == "rssm"
    assert ended(folder, names[0]) == (0, "begins", 0)
    log = (folder / f"{names[0]}.log").read_text().splitlines()
    assert log[0].startswith("$ ") and "-m tests.launch.stub" in log[0] and log[1:] == ["begins"]
    assert "4 cells: 4 done" in capsys.readouterr().out
    assert call(folder) == 0 and call(folder, *MAIN, *words) == 0
    assert starts(folder) == dict.fromkeys(names, 1)


def test_status_report_and_csv(tmp_path, capsys, drawn):
    words = ("--set=model.kind=rssm,ssm", "--set=seed=0,1", "--tasks=fake:counter,fake:terminating")
    folder = tmp_path / "s"
    assert call(folder, *MAIN, *words, "--status") == 0 and not folder.exists()
    assert "8 cells: 8 waiting" in capsys.readouterr().out
    assert call(folder, *MAIN, *words, "--jobs=3") == 0
    (folder / "counter_kind_ssm_seed_1.exit.json").write_text(json.dumps(dict(code=3, last="a <NaN>", tries=1)))
    capsys.readouterr()
    assert call(folder, "--status") == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "terminating_kind_ssm_seed_1" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == ["done", "", "20", "1103"]
    assert lines[-2:] == ["counter_kind_ssm_seed_1: exit code 3: a <NaN>", "8 cells: 7 done, 1 failed"]
    assert call(folder, "--report") == 0
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 2 and ">fake:terminating<" in page and "a &lt;NaN&gt;" in page
    assert "model.kind ssm (2 seeds)" in page and "fake:counter, model.kind rssm" in page
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    assert [row["state"] for row in rows].count("done") == 7
    assert rows[0] == {
        "cell": "counter_kind_rssm_seed_0",
        "task": "fake:counter",
        "model.kind": "rssm",
        "seed": "0",
        "state": "done",
        "env_steps": "20",
        "updates": "",
        "eval/return_mean": "2",
        "eval/return_std": "",
        "eval/loss": "",
    }


def test_exit_codes_decide(tmp_path, capsys):
    assert call(tmp_path, *MAIN, "--set=fault=exit:1,exit:2,exit:3,first:75,first:1,kill", "--jobs=4") == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: 3 of 6 cells failed: fault_exit-1-") and err.count("\n") == 1
    names = {name.removeprefix("fault_").rpartition("-")[0] or "kill": name for name in starts(tmp_path)}
    counts = {fault: starts(tmp_path)[name] for fault, name in names.items()}
    assert counts == {"exit-1": 3, "exit-2": 1, "exit-3": 1, "first-75": 2, "first-1": 2, "kill": 2}
    found = {fault: ended(tmp_path, name) for fault, name in names.items()}
    assert found["exit-1"] == (1, "error: told to end with 1", 3)
    assert found["exit-3"] == (3, "error: told to end with 3", 1)
    assert {fault: found[fault].tries for fault in ("first-75", "first-1", "kill")} == dict(
        zip(("first-75", "first-1", "kill"), (0, 1, 1), strict=True)
    )
    assert "fault_kill: exit code 137 after" in out
    assert call(tmp_path) == 2  # what failed is not started again
    assert {fault: starts(tmp_path)[name] for fault, name in names.items()} == counts
    assert call(tmp_path, "--retry=failed", "--tries=1") == 2
    assert {fault: starts(tmp_path)[name] for fault, name in names.items()} == counts | {
        "exit-1": 4,
        "exit-2": 2,
        "exit-3": 2,
    }


def test_one_typo_ends_in_one_line_before_anything_starts(tmp_path, capsys):
    def refused(*words):
        assert call(tmp_path / "s", *MAIN, *words) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and not out and not (tmp_path / "s").exists()
        return err

    assert "cell kind_rsm_seed_0: config.model.kind='rsm': choose" in refused(
        "--set=model.kind=ssm,rsm", "--set=seed=0:4"
    )
    assert "cell seed_0_knid_a: config.model.knid does not exist: did you mean kind?" in refused(
        "--set=seed=0:4", "--set=model.knid=a,b"
    )
    assert "cell seed_x: " in refused("--set=seed=1,x")
    assert "cell nowhere: unknown fake task" in refused("--tasks=fake:counter,fake:nowhere")
    assert "cell seed_1: config.sed does not exist" in refused("--set=seed=1,2", "--config.sed=3")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*MAIN], "give --main=MODULE, --config=FILE:ARGUMENT and --set=KEY"),
        ([], "holds no sweep: give --main=MODULE"),
        (["--folder=pyproject.toml"], "pyproject.toml holds no sweep"),
        (["--status"], "holds no sweep"),
        (["--extend", "--set=seed=1"], "holds no sweep"),
        ([*MAIN, "--set=seed="], "--set=seed=: a value is empty"),
        ([*MAIN, "--set=seed=0:10000000000"], "--set=seed=0:10000000000: a range has at most 100,000 values"),
        ([*MAIN, "--set=seed=1", "--set=seed=2"], "there is an axis seed already"),
        ([*MAIN, "--set=seed=1", "--config.seed=2"], "--config.seed=2: there is an axis of it"),
        ([*MAIN, "--set=seed=1", "--config.seed"], "--config.seed: give --config.key=value"),
        ([*MAIN, "--set=seed=1", "--engine=pbs"], "value should be one of <local|slurm|ray>"),
        ([*MAIN, "--set=seed=1", "--jobs=0"], "--jobs"),
        ([*MAIN, "--set=model.kind=ssm", "--pack=seed"], "--pack=seed needs --set=seed"),
        ([*MAIN[:1], "--config=nowhere.py:a,b", "--set=seed=1"], "config file 'nowhere.py' does not exist"),
        (["--main=experiments.plant", MAIN[1], "--set=seed=1"], "--main=experiments.plant is no training main; those"),
        (["--main=./planet", MAIN[1], "--set=seed=1"], "--main=./planet is no training main"),
        (["--main=experiments.record", MAIN[1], "--set=seed=1"], "of this project: experiments.planet, experiments."),
        (["--main=wmjax.run", MAIN[1], "--set=seed=1"], "--main=wmjax.run is no training main"),
    ],
)
def test_bad_input_is_one_line(words, told, tmp_path, capsys):
    assert call(tmp_path / "s", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_another_sweep_is_refused_with_the_difference_and_extended(tmp_path, capsys):
    folder = tmp_path / "s"
    assert call(folder, *MAIN, "--set=seed=0:2") == 0
    capsys.readouterr()
    assert call(folder, *MAIN, "--set=seed=0:3", "--config.model.kind=ssm") == 2
    error = capsys.readouterr().err
    assert "holds another sweep: axes.seed ['0', '1'] -> ['0', '1', '2']; settings [] -> ['model.kind=ssm']" in error
    assert call(folder, *MAIN, "--set=seed=0:3") == 2
    assert "; --extend adds values; choose another folder" in capsys.readouterr().err
    assert call(folder, "--extend", "--set=model.kind=ssm") == 2
    assert "--extend adds values to seed, not axes" in capsys.readouterr().err
    assert call(folder, "--extend", "--set=seed=4", "--main=tests.other") == 2
    assert "main tests.launch.stub -> tests.other" in capsys.readouterr().err
    assert call(folder, "--extend", "--set=seed=4") == 0
    assert starts(folder) == dict(seed_0=1, seed_1=1, seed_4=1)
    assert call(folder, *MAIN, "--set=seed=0,1,4") == 0
    damaged = (folder / "sweep.json").read_text().replace("fake:counter", "fake:count")
    (folder / "sweep.json").write_text(damaged)
    capsys.readouterr()
    assert call(folder) == 2 and "sweep.json is damaged" in capsys.readouterr().err


def test_a_runs_own_folder_is_no_sweeps(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    for also in ([], ["--dry_run"]):
        assert call(tmp_path, *MAIN, "--set=seed=0:2", *also) == 2
        assert "is the working folder of a run" in capsys.readouterr().err
    assert call(tmp_path / "config.json" / "s", *MAIN, "--set=seed=0:2", "--dry_run") == 2
    assert "config.json is not a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_dry_run_is_lines_for_a_shell(tmp_path, capsys):
    folder = tmp_path / "it's"
    words = (*MAIN, "--set=env.size=(1,2),(3,)", "--config.model.kind=ssm")
    assert call(folder, *words, "--dry_run") == 0 and not folder.exists()
    lines = capsys.readouterr().out
    assert lines.count("\n") == 2 and ("taskset -c" in lines) == ("taskset" in str(jobs.make_slots(1, [0])))
    subprocess.run(["sh", "-e"], input=lines, text=True, check=True, cwd=ROOT, capture_output=True)
    assert starts(folder) == dict(size_1x2=1, size_3=1)
    assert json.loads((folder / "size_3.starts").read_text())["flags"]["config.model.kind"] == "ssm"
    assert call(folder, *words) == 0 and starts(folder) == dict(size_1x2=1, size_3=1)  # they are done
    capsys.readouterr()
    assert call(folder, "--dry_run") == 0 and capsys.readouterr().out == "# nothing is left to start\n"


def test_a_killed_driver_and_then_a_signal(tmp_path, capfd):
    first = drive(tmp_path, *MAIN, "--set=fault=sleep:20", "--set=seed=0,1")
    wait_for((tmp_path / "asleep").exists)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    (tmp_path / "asleep").unlink()
    assert call(tmp_path, "--status") == 0
    out = capfd.readouterr().out
    assert "2 cells: 1 running, 1 waiting" in out
    second = drive(tmp_path, "--jobs=2")
    wait_for((tmp_path / "asleep").exists)  # of the other cell; the first one is waited for
    os.kill(second.pid, signal.SIGTERM)
    second.wait()
    assert second.returncode == 75
    out, err = capfd.readouterr()
    (name,) = {name for name, count in starts(tmp_path).items() if "seed_1" in name}
    assert ended(tmp_path, name) == (75, "begins", 0) and "stopped by SIGTERM: the same command goes on" in err
    assert "another process works on it: waiting" in out
    assert list(starts(tmp_path).values()) == [1, 1]


def test_two_drivers_do_not_run_one_sweep(tmp_path, capfd):
    first = drive(tmp_path, *MAIN, "--set=fault=sleep:60")
    wait_for((tmp_path / "asleep").exists)
    assert call(tmp_path) == 2
    assert f"another process is running in {tmp_path}" in capfd.readouterr().err
    os.kill(first.pid, signal.SIGINT)
    first.wait()
    assert first.returncode == 75 and ended(tmp_path, next(iter(starts(tmp_path)))).code == 75


def assert_equal_reports(tmp_path, capsys, words, *pack):
    """Of a sweep in the folder one/sweep and of another in packed/sweep."""
    found = {}
    for name, more in dict(one=(), packed=pack).items():
        folder = tmp_path / name / "sweep"
        assert call(folder, *words, *more, "--status") == 0
        assert call(folder, *words, *more) == 0
        page = (folder / "report.html").read_text().replace(f"{folder.parent}", "")
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|") or " cells: " in line]
        found[name] = ((folder / "sweep.csv").read_text(), page, told)
    for one, packed in zip(*found.values(), strict=True):
        assert one == packed


def test_packed_and_unpacked_sweeps_have_equal_reports(tmp_path, capsys):
    words = (*MAIN, "--set=model.kind=rssm,ssm", "--set=seed=0:3")
    assert_equal_reports(tmp_path, capsys, words, "--pack=seed", "--pack_size=2")
    packed = starts(tmp_path / "packed" / "sweep")
    assert packed == {f"kind_{kind}_seed_{seeds}": 1 for kind in ("rssm", "ssm") for seeds in ("0_to_1", "2")}
    assert call(tmp_path / "packed" / "sweep", "--extend", "--set=seed=3:5") == 0
    assert set(starts(tmp_path / "packed" / "sweep")) - set(packed) == {
        f"kind_{k}_seed_3_to_4" for k in ("rssm", "ssm")
    }
    assert call(tmp_path / "one" / "sweep", *words, "--pack=seed") == 2
    assert "pack_size 0 -> 4" in capsys.readouterr().err


TASKS = (MAIN[0], "--config=tests/launch/stub/config.py:x,paper", "--tasks=fake:counter,fake:terminating")


def test_tasks_in_one_program_have_the_same_report_too(tmp_path, capsys):
    words = (*TASKS, "--set=seed=0,7")
    assert_equal_reports(tmp_path, capsys, words, "--pack=task")
    packed = tmp_path / "packed" / "sweep"
    assert starts(packed) == {f"counter+terminating_seed_{seed}": 1 for seed in (0, 7)}
    members = make_members("fake:counter+fake:terminating", 7, 1)
    found = {path.parent.name for path in packed.glob("counter+terminating_seed_7/*/metrics.jsonl")}
    assert found == set(lifecycle.folder_names(members))  # where mains put them
    assert call(packed, "--extend", "--set=seed=9") == 0 and len(starts(packed)) == 3
    assert call(packed, *words, "--set=model.kind=ssm", "--pack=seed") == 2
    assert "pack task -> seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*TASKS], "--pack=task needs --set=seed=..."),
        ([*MAIN, "--set=seed=0"], "--pack=task needs --tasks=FIRST,SECOND"),
        ([*TASKS[:2], "--tasks=a+b,c", "--set=seed=0"], "--tasks=a+b: are several in one program already"),
        (
            [MAIN[0], "--config=tests/launch/stub/config.py:x,by_task", TASKS[2], "--set=seed=0"],
            "cell counter_seed_0: --pack=task: config.model.rate is 1 in the pack and 2 of fake:terminating alone",
        ),
        (
            ["--main=experiments.i2a", "--config=experiments/i2a/config.py:x,model_free,cpu", TASKS[2], "--set=seed=0"],
            "--pack=task: experiments.i2a does not train 2 agents in one program",
        ),
    ],
)
def test_tasks_that_cannot_be_in_one_program(words, told, tmp_path, capsys):
    assert call(tmp_path / "s", *words, "--pack=task") == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_seeds_of_a_main_without_populations_are_not_packed(tmp_path, capsys):
    config = "--config=experiments/i2a/config.py:x,model_free,cpu"
    assert call(tmp_path / "s", "--main=experiments.i2a", config, "--set=seed=0:2", "--pack=seed") == 2
    error = capsys.readouterr().err
    assert "cell seed_0: --pack=seed: experiments.i2a does not train 2 agents in one program" in error


def test_settings_of_another_engine_are_refused(tmp_path, capsys):
    assert call(tmp_path / "s", *MAIN, "--set=seed=0", "--slurm=partition=gpu") == 2
    assert "--slurm=partition=gpu: is of --engine=slurm, not of local" in capsys.readouterr().err
    assert call(tmp_path / "s", *MAIN, "--set=seed=0", "--engine=slurm", "--slurm=gpu", "--dry_run") == 2
    assert "--slurm=gpu: give key=value" in capsys.readouterr().err


def test_a_sweep_from_before_tasks_were_packed_goes_on(tmp_path):
    assert call(tmp_path, *MAIN, "--set=seed=0,1", "--pack=seed") == 0
    definition = files.read_sealed(tmp_path / sweep.SWEEP)
    files.write_sealed(tmp_path / sweep.SWEEP, {name: value for name, value in definition.items() if name != "pack"})
    assert call(tmp_path, *MAIN, "--set=seed=0,1", "--pack=seed") == 0
    assert starts(tmp_path) == dict(seed_0_to_1=1)


def test_help_is_a_page(capsys):
    with pytest.raises(SystemExit):
        call("x", "--help")
    page = capsys.readouterr().out
    assert page.startswith(sweep.__doc__) and "  --per_gpu=1\n" in page
