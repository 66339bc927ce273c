"""The benchmark counts the work of the paper's networks and runs as a user runs it."""

import json
import types

import jax
import pytest

from experiments.benchmark import chart, games, planner, rivals, rows, train, video
from experiments.benchmark.data import SPEC
from tests import mains
from wmjax.models import rssm
from wmjax.planners import CEMConfig
from wmjax.report import benchmark

OURS = benchmark.Work("rssm, 8 envs", lambda: None, {"decisions": 8})
RIVALS = ("torchrl", "simulusion", "xwm")


def test_the_papers_decision_and_update_are_counted_as_by_hand(monkeypatch):
    """Multiplications and additions of a row in each layer; an update does each forwards and twice backwards."""
    gru, gaussian, reward = 3 * (200 + 200) * 200, 200 * 200 + 200 * 60, 230 * 200 + 200 * 200 + 200
    imagine = (30 + 6) * 200 + gru + gaussian
    decision = next(work for work in planner.works("quick"))
    assert decision.gflop() == pytest.approx(2 * (imagine + reward) * 12 * 1000 * 10 / 1e9, rel=1e-6)

    first = 31 * 31 * 4 * 4 * 3 * 32  # k4 s2: 64 -> 31 -> 14 -> 6 -> 2
    encoder = first + 4 * 4 * (14 * 14 * 32 * 64 + 6 * 6 * 64 * 128 + 2 * 2 * 128 * 256) + 1024 * 200
    decoder = 230 * 1024 + 5 * 5 * 1024 * 128 + 25 * 5 * 5 * 128 * 64 + 36 * 13 * 13 * 64 * 32 + 36 * 30 * 30 * 32 * 3
    row = encoder + decoder + imagine + gaussian + reward
    monkeypatch.setitem(train.SIZES, "paper", [(50, 50, "float32")])  # the first of the works then
    update = next(train.works("paper"))
    assert update.gflop() == pytest.approx(2 * (3 * row - first) * 50 * 50 / 1e9, rel=1e-3)


def test_the_work_of_an_image_is_counted_as_by_hand():
    """Multiplications and additions of SV2P, (side, inputs with their own, filters) of its cells first."""
    cells = [(32, 64, 32), (32, 64, 32), (16, 96, 64), (16, 128, 64), (16, 192, 64), (32, 128, 32)]
    body = sum(side**2 * 25 * seen * 4 * filters for side, seen, filters in cells)
    body += 148 * (8 * 8 * 192 + 192 * 4 * 128 + 8 * 8 * 4 * 128)  # the cell of 8 x 8 by its frequencies on 10 x 10
    body += 148 * 25 * 192 * 4 * 128 / 16  # those of its kernel, for all of 16 sequences
    body += 32**2 * 25 * 3 * 32 + 16**2 * 9 * 32 * 32 + 8**2 * 9 * 64 * 64  # the halvings
    body += 9 * (8**2 * 128 * 128 + 16**2 * 96 * 96 + 32**2 * 64 * 64)  # the doublings: each input by every weight
    body += 6 * 64 + 8**2 * 66 * 64 + 8**2 * 128 * 250 + 64**2 * (64 * 14 + 25 * 9)  # action, kernels, masks, shares
    imagined = next(video.works("quick"))
    assert imagined.gflop() == pytest.approx(2 * body * imagined.amounts["frames"] / 1e9, rel=1e-6)


def test_games_of_every_size_are_measured():
    works = list(games.works("paper"))
    assert [work.amounts["steps"] for work in works] == [32_000, 512_000] * 2 and len(
        {work.name for work in works}
    ) == 4


@pytest.mark.parametrize("library", ["torchrl", "simulusion"])
def test_a_rival_has_the_same_network(library):
    """torch's GRU cell has a second bias of three times 200 numbers, which add up with the first."""
    pytest.importorskip(library)
    _, learner = rssm.make(rssm.RSSMConfig(), SPEC)
    ours = sum(x.size for x in jax.tree.leaves(jax.eval_shape(learner.init, jax.random.key(0)).params))
    networks = dict(torchrl=lambda size: rivals.torchrl_networks(size).values())
    networks |= dict(simulusion=lambda size: [rivals.simulusion_network(size)])
    theirs = networks[library](SPEC.action.size)
    assert sum(p.numel() for network in theirs for p in network.parameters()) == ours + 3 * 200


@pytest.mark.parametrize(
    ("library", "decide", "update", "more"),
    [
        ("torchrl", rivals.torchrl_decide, rivals.torchrl_step, 0),
        ("simulusion", rivals.simulusion_decide, rivals.simulusion_step, 0.02),  # encodes 21 images for 20
    ],
)
def test_a_rival_does_the_same_work(library, decide, update, more):
    """The operations of its products, by torch's own count; more: the part that an update has above ours."""
    pytest.importorskip(library)
    from torch.utils.flop_counter import FlopCounterMode

    for call, ours, above in [
        (decide(1, CEMConfig(iterations=1), SPEC.action.size), next(planner.works("quick")).gflop() / 10, 0),
        (update(16, 20, SPEC.action.size), next(train.works("quick")).gflop(), more),
    ]:
        with FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() / 1e9 / ours == pytest.approx(1 + above, abs=0.005)


def test_xwms_search_does_the_same_work():
    pytest.importorskip("xwm")
    ours = next(planner.works("quick")).gflop()
    assert rivals.xwm_planner("", 1, CEMConfig(), SPEC).gflop() == pytest.approx(ours, rel=1e-3)  # and its last plan


def test_a_user_gets_a_table_a_file_and_a_picture(tmp_path):
    places = (f"--json={tmp_path}/speed.json", f"--chart={tmp_path}/speed.svg")
    ended = mains.command("benchmark", "--only=replay", "--repeats=1", *places)
    assert ended.returncode == 0, ended.stderr
    written = json.loads((tmp_path / "speed.json").read_text())
    assert (
        written["settings"] == dict(preset="quick", dry=False, repeats=1, minutes=None)
        and written["machine"]["jax"] == jax.__version__
    )
    names = [row["name"] for row in written["rows"]]
    ours = [row["name"] for row in written["rows"] if "reference" not in row]
    assert len(ours) == 5 == len(set(ours)) and all(name in ended.stdout for name in names)
    assert (tmp_path / "speed.svg").stat().st_size > 0


def test_the_picture_shows_other_libraries_beside_us():
    planners = [
        dict(part="planner", kind=kind, envs=n) | {"decisions/s": n} for kind in ("rssm", "torchrl") for n in (1, 8)
    ]
    rows = [*planners, dict(part="train", name="torchrl, 16 x 20", ms=3.0), dict(part="train", piece="scan", ms=2.0)]
    picture = chart.draw(rows, "title", "svg").decode()
    assert all(word in picture for word in ("torchrl", "rssm", "scan", "decisions/s"))


def test_other_libraries_tags_are_those_of_the_picture(monkeypatch):
    monkeypatch.setattr(rivals, "installed", lambda library: library in ("torchrl", "simulusion"))
    monkeypatch.setattr(rivals, "apart", lambda *args: None)
    theirs = list(rivals.decisions(OURS, 8, CEMConfig(), SPEC))
    assert [work.tags for work in theirs] == [dict(kind=library, envs=8) for library in ("torchrl", "simulusion")]
    assert all(work.reference is OURS for work in theirs)


def test_a_rival_that_is_not_installed_is_named_once(monkeypatch, capsys, request):
    rivals.installed.cache_clear()
    request.addfinalizer(rivals.installed.cache_clear)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for _ in range(2):
        assert not [*rivals.decisions(OURS, 1, CEMConfig(), SPEC), *rivals.updates(OURS, 16, 20, 6)]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == [f"{each} is not installed" for each in RIVALS]


def test_what_a_rival_cannot_do_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(rivals, "installed", lambda library: library == "xwm")
    part = types.SimpleNamespace(works=lambda preset: rivals.updates(OURS, 16, 20, 6))
    (row,) = rows.measured(dict(train=part), "quick", None, None)
    assert row["name"] == "xwm, 16 x 20" and rows.outcome(row) == "left out" and "no decoder" in row["left_out"]


def test_rivals_stand_beside_float32_alone(monkeypatch):
    monkeypatch.setattr(rivals, "updates", lambda ours, *sizes: [f"beside {ours.name}"])
    monkeypatch.setitem(train.PARTS, "quick", [])
    ours, theirs, half = train.works("quick")
    assert theirs == "beside update, 16 x 20" == f"beside {ours.name}" and half.tags["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            ["--only=plan"],
            "--only=plan: choose from planner, rollout, train, video, replay, actors, dream, phase, simulator, games",
        ),
        (["--preset=full"], "--preset=full: choose from quick, paper, accelerator"),
        (["--chart=a.jpg"], "a.jpg: must end in .png or .svg"),
        (["--json=nowhere/a.json"], "/nowhere/a.json: there is no folder /"),
        (["--repeats=0"], "repeats"),
        (["--json=/proc/a.json", "--only=train"], "cannot write /proc/a.json"),
    ],
)
def test_bad_input_is_one_line(flags, named):
    ended = mains.call("benchmark.__main__", *flags)
    assert ended.code == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ") and named in ended.stderr
