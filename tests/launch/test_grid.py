"""The cells of sweeps: values, ranges, products, what goes together, names, lists of seeds."""

import pytest

from launch import grid
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("rssm,ssm", ["rssm", "ssm"]),
        ("0:3,7", ["0", "1", "2", "7"]),
        ("-1:1", ["-1", "0"]),
        ("(1,2),(3,4)", ["(1,2)", "(3,4)"]),
        ("[1, (2,3)], (4,)", ["[1, (2,3)]", "(4,)"]),
        ("('a,b','c'),('d)',)", ["('a,b','c')", "('d)',)"]),
        ("ball:drifting", ["ball:drifting"]),
        ("1e-3,1e-4", ["1e-3", "1e-4"]),
    ],
)
def test_values_are_split_outside_of_brackets_and_quotation_marks(text, values):
    assert grid.read_values("--set", text) == values


@pytest.mark.parametrize("text", ["", ",", "a,", "a,,b", "3:3", "5:2"])
def test_empty_values_are_refused(text):
    with pytest.raises(UsageError, match="^--set=k=.*: a value is empty"):
        grid.read_values(f"--set=k={text}", text)


def test_a_product_with_what_goes_together():
    axes, zipped = grid.read_axes(["seed=9:11", "model.kind=a,b"], ["x.lr=1,2", "x.batch=3,4"], ["Pong", "Boxing"])
    assert zipped == ["x.lr", "x.batch"]
    cells = grid.product(axes, zipped)
    assert len(cells) == 2 * 2 * 2 * 2
    assert [cell["seed"] for cell in cells.values()] == ["9"] * 8 + ["10"] * 8
    assert {(cell["x.lr"], cell["x.batch"]) for cell in cells.values()} == {("1", "3"), ("2", "4")}
    assert list(cells)[0] == "Pong_seed_9_kind_a_lr_1_batch_3"
    assert list(cells["Boxing_seed_10_kind_b_lr_2_batch_4"]) == ["task", "seed", "model.kind", "x.lr", "x.batch"]


@pytest.mark.parametrize(
    ("sets", "zips", "tasks", "told"),
    [
        (["a"], [], [], "--set=a: give KEY=VALUE"),
        (["=1"], [], [], "--set==1: give KEY=VALUE"),
        (["a=1", "a=2"], [], [], "--set=a=2: there is an axis a already"),
        (["a=1"], ["a=2"], [], "--zip=a=2: there is an axis a already"),
        (["task=A"], [], ["B"], "--set=task=A: there is an axis task already"),
        ([], ["a=1,2", "b=1"], [], "--zip needs as many values of each key, not {'a': 2, 'b': 1}"),
        (["a=1,2,1"], [], [], "a=1,2,1: names one value twice"),
    ],
)
def test_bad_axes_are_refused(sets, zips, tasks, told):
    with pytest.raises(UsageError) as error:
        grid.read_axes(sets, zips, tasks)
    assert told in str(error.value)


def test_names_are_short_safe_and_tell_cells_apart():
    assert grid.name_of({"model.kind": "rssm", "seed": "3"}) == "kind_rssm_seed_3"
    assert grid.name_of({"model.width": "1", "policy.width": "2"}) == "model.width_1_policy.width_2"
    assert grid.name_of({"env.size": "(64, 32)"}) == "size_64x32"
    assert grid.name_of({"task": "fake:counter", "rate": "-1e-3"}) == "counter_rate_-1e-3"
    odd = [grid.safe(value) for value in ("a/b", "a\\b", "../b", "é", "", ".", "x" * 300, "x" * 301)]
    assert len(set(odd)) == len(odd)
    assert all(name and len(name) < 60 and not set(name) & set("/\\= ,:") and name[0] != "." for name in odd)
    assert len(grid.name_of({f"key_number_{i}": "value" for i in range(100)})) < 200
    with pytest.raises(UsageError, match="two cells would have one folder: size_1x2"):
        grid.product({"size": ["(1,2)", "1x2"]}, [])


def test_words_put_the_task_into_the_argument():
    found = grid.words("f.py:ball,sssm,cpu", ["a=1"], {"task": "data/p", "seed": "0"})
    assert found == ("f.py:data/p,sssm,cpu", ["a=1", "seed=0"])


def test_extended_axes_keep_their_order():
    old = dict(axes=dict(seed=["0", "1"], a=["x", "y"], b=["1", "2"]), zipped=["a", "b"])
    assert grid.extended(old, dict(seed=["1", "5"]), [])["seed"] == ["0", "1", "5"]
    more = grid.extended(old, dict(a=["y", "x"], b=["2", "9"]), ["a", "b"])
    assert more == dict(seed=["0", "1"], a=["x", "y", "x"], b=["1", "2", "9"])
    with pytest.raises(UsageError, match="adds values to seed, a, b, not axes"):
        grid.extended(old, dict(c=["1"]), [])
    with pytest.raises(UsageError, match="a, b go together"):
        grid.extended(old, dict(a=["z"]), [])


def test_packs_hold_seeds_that_follow_on_one_another():
    packs = grid.packs("seed", ["0", "1", "2", "5", "6"], 2, [])
    assert packs == [["0", "1"], ["2"], ["5", "6"]]
    assert grid.packs("seed", ["0", "1", "2", "5", "6", "3", "4"], 4, packs) == [*packs, ["3", "4"]]
    cells = grid.product(dict(kind=["a", "b"], seed=["0", "1", "2"]), [])
    assert grid.packed(cells, "seed", packs[:1]) == [
        ["kind_a_seed_0", "kind_a_seed_1"],
        ["kind_b_seed_0", "kind_b_seed_1"],
        ["kind_a_seed_2"],
        ["kind_b_seed_2"],
    ]


def test_tasks_are_packed_in_their_order():
    assert grid.packs("task", ["Pong", "Boxing", "Alien"], 2, [["Pong"]]) == [["Pong"], ["Boxing", "Alien"]]
    cells = grid.product(dict(task=["f:a", "f:b"], seed=["4"]), [])
    assert grid.joined("task", list(cells.values())) == (
        dict(task="f:a+f:b", seed="4"),
        "a+b_seed_4",
        ["a_seed_4", "b_seed_4"],
    )
