"""Timing on shared machines: medians with minimum and maximum, beside a matrix product measured in between.

Each repetition of a piece of work follows a large matrix product, so that both see the same load of the machine:
milliseconds of two runs cannot be compared, shares of the product's rate can.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from wmjax import backend

PRODUCT = dict(cpu=2048, gpu=8192, tpu=8192)  # side of the matrix product
LONGEST = 20.0  # seconds after which no further repetition of a piece of work begins
SHORTEST = 0.1  # seconds that a repetition should take; shorter calls are repeated inside it
TURN = 1.0  # the same where two libraries take turns: the first calls after the other's are slower than in a run
WARM_CALLS, WARM_SECONDS = 4, 6.0  # before the first repetition; an allocator that keeps its memory must first have it
PEAK = "peak_mb"


@dataclass(frozen=True)
class Work:
    """One thing to measure: a line of the table.

    name: what is special about it; call: does it once; amounts: what one call makes, by its unit ("decisions": 8);
    gflop: of its matrix products, None where there is no sense in it; extra: other figures; both asked for at the end.
    prepare: makes what a call needs, before anything is timed.
    """

    name: str
    call: Callable[[], Any]
    amounts: Mapping[str, float]
    gflop: Callable[[], float] | None = None
    extra: Callable[[], dict[str, float]] = dict
    tags: dict[str, Any] = field(default_factory=dict)  # settings, for the JSON file and the chart
    reference: "Work | None" = None  # of another library's work: ours, timed in turn with it
    once: bool = False  # it takes long, compiles nothing here and repeats inside itself
    prepare: Callable[[], Any] = dict


class Finding(NamedTuple):
    """Something to find out that is no speed: a line of the table with figures of its own."""

    name: str
    find: Callable[[], dict[str, Any]]  # its figures; "failed" among them, where something is wrong, says what


def compiled(
    name: str,
    function: Callable,
    args: Sequence[Any] | Callable[[], Sequence[Any]],
    amounts: Mapping[str, float],
    **tags: Any,
) -> Work:
    """A Work that calls a jitted function of arrays; its gflop are counted and its peak memory is the compiler's.

    function: is jitted here unless it is already; args: of the function, or a function that makes them when the work's
    turn comes. The first call compiles.
    """
    arguments = functools.cache(args if callable(args) else lambda: args)
    jitted: Any = function if hasattr(function, "trace") else jax.jit(function)
    traced = functools.cache(lambda: jitted.trace(*arguments()))
    program = functools.cache(lambda: traced().lower().compile())

    def memory() -> dict[str, float]:
        analysis = program().memory_analysis()
        used = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
        return {PEAK: (used - analysis.alias_size_in_bytes) / 1e6}

    gflop = lambda: gflops_of(traced().jaxpr.jaxpr)
    return Work(name, lambda: program()(*arguments()), amounts, gflop, memory, tags=tags, prepare=arguments)


def measure(work: Work, repeats: int, side: int | None = None) -> dict[str, Any]:
    """Does `work` repeatedly. Returns: a dict of numbers; milliseconds and rates are of one call.

    side: of the matrix product beside it, None: PRODUCT.

    compile_s is the first call's time; share is the rate of the work's matrix products over that of the plain one;
    relative_time, of another library's work, the median of the ratios of repetitions that followed each other.
    """
    square = jnp.ones((side or PRODUCT[backend.name()],) * 2)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(square))
    jax.block_until_ready(work.prepare())
    compile_s, calls = 0.0, 1
    if not work.once:
        compile_s, begun = seconds(work.call), time.perf_counter()
        warm = [seconds(work.call)]
        while len(warm) < WARM_CALLS and time.perf_counter() - begun < WARM_SECONDS:
            warm.append(seconds(work.call))
        least = SHORTEST if work.reference is None else TURN
        calls = int(np.clip(np.ceil(least / max(warm[-1], 1e-9)), 1, 1000))
    times, rates, ratios = [], [], []
    begun = time.perf_counter()
    while not times or (len(times) < repeats and not work.once and time.perf_counter() - begun < LONGEST):
        rates.append(2 * len(square) ** 3 / seconds(lambda: product(square)) / 1e9)
        if work.reference is None:
            times.append(seconds(work.call, calls))
            continue
        jax.block_until_ready(work.call())  # each had its memory cooled by the other
        times.append(seconds(work.call, calls))
        jax.block_until_ready(work.reference.call())
        ratios.append(times[-1] / seconds(work.reference.call, calls))
    median = float(np.median(times))
    row: dict[str, Any] = dict(ms=median * 1e3, ms_min=min(times) * 1e3, ms_max=max(times) * 1e3, compile_s=compile_s)
    row["repeats"] = len(times)
    row |= {f"{unit}/s": amount / median for unit, amount in work.amounts.items()}
    if work.reference is not None:
        row |= dict(reference=work.reference.name, relative_time=float(np.median(ratios)))
    if work.gflop is not None:
        rate, gflop = float(np.median(rates)), work.gflop()
        row |= dict(gflop=gflop, product_gflops=rate, share=gflop / median / rate)
    return row | work.extra()


def seconds(call: Callable[[], Any], times: int = 1) -> float:
    """Seconds of one call until its results are there, the mean of a few."""
    start = time.perf_counter()
    for _ in range(times):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / times


def gflops(function: Callable, *args: Any) -> float:
    """10^9 floating-point operations of the matrix products and convolutions of function(*args)."""
    return gflops_of(jax.make_jaxpr(function)(*args).jaxpr)


def gflops_of(jaxpr: Any) -> float:
    """The same of a jaxpr."""
    used, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # the first layer's images get no gradient, for one
    return float(sum(flops_of(used))) / 1e9


def flops_of(jaxpr: Any) -> Iterator[float]:
    """Operations of every product in a jaxpr; a scan's count as often as it runs, of branches the costliest."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inner = np.prod([eqn.invars[0].aval.shape[axis] for axis in contracted])
            yield 2.0 * eqn.outvars[0].aval.size * inner
        elif name == "conv_general_dilated":
            features = eqn.params["dimension_numbers"].rhs_spec[0]
            kernel = eqn.invars[1].aval
            zeros = np.prod(eqn.params["lhs_dilation"])  # of a transposed convolution: most inputs are zero
            yield 2.0 * eqn.outvars[0].aval.size * kernel.size / kernel.shape[features] / zeros
        elif name == "cond":
            yield max(sum(flops_of(branch.jaxpr)) for branch in eqn.params["branches"])
        else:
            times = eqn.params["length"] if name == "scan" else 1
            for inside in jaxprs_in_params(eqn.params):
                yield from (times * flops for flops in flops_of(inside))
