"""Products are counted, times are measured and rates follow from them."""

import time

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from wmjax.report import benchmark


def test_products_are_counted_inside_scans_and_convolutions():
    a, b = jnp.zeros((3, 5)), jnp.zeros((5, 7))
    assert benchmark.gflops(lambda a, b: a @ b, a, b) == 2 * 3 * 5 * 7 / 1e9

    def scanned(a, b):
        return lax.scan(lambda carry, _: (carry, jax.jit(jnp.matmul)(a, b)), 0, None, length=11)

    assert benchmark.gflops(scanned, a, b) == 11 * 2 * 3 * 5 * 7 / 1e9
    chosen = lambda p, a, b: lax.cond(p, lambda: a @ b @ (a @ b).T, lambda: a @ b @ jnp.ones((7, 3)))
    assert benchmark.gflops(chosen, True, a, b) == (2 * 2 * 3 * 5 * 7 + 2 * 3 * 7 * 3) / 1e9  # the costlier branch
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((4, 4, 3, 6))
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda x, k: lax.conv_general_dilated(x, k, (2, 2), "VALID", dimension_numbers=numbers)
    assert benchmark.gflops(conv, x, kernel) == pytest.approx(2 * (2 * 3 * 3) * (4 * 4 * 3) * 6 / 1e9)


def test_times_are_of_one_call_and_rates_of_its_amounts():
    calls = []

    def call():
        calls.append(time.sleep(0.02))

    row = benchmark.measure(benchmark.Work("sleep", call, {"naps": 3}, gflop=lambda: 1.0), repeats=3)
    assert 20 <= row["ms_min"] <= row["ms"] <= row["ms_max"] and row["ms"] < 40
    assert row["naps/s"] == pytest.approx(3 / row["ms"] * 1e3)
    assert row["share"] == pytest.approx(1 / row["ms"] * 1e3 / row["product_gflops"])
    assert len(calls) >= 2 + 3 * 4  # short calls are repeated inside a repetition


def test_two_libraries_take_turns_of_a_second(monkeypatch):
    monkeypatch.setattr(benchmark, "TURN", 0.2)
    monkeypatch.setattr(benchmark, "SHORTEST", 0.0)
    order = []
    ours = benchmark.Work("ours", lambda: order.append("ours"), {})
    theirs = benchmark.Work("theirs", lambda: order.append(time.sleep(0.02)), {}, reference=ours)
    row = benchmark.measure(theirs, repeats=2, side=8)
    warm = 1 + benchmark.WARM_CALLS
    turn = order.index("ours") - warm  # its first call is not timed
    assert 1 + 2 <= turn <= 1 + 10
    assert order == [None] * warm + ([None] * turn + ["ours"] * turn) * 2
    assert row["reference"] == "ours" and row["relative_time"] > 100
