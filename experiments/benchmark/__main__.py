"""The speed of the parts at PlaNet's sizes, beside the rate of a plain matrix product in the same run.

    python -m experiments.benchmark --only=planner,train --json=speed.json

Rows: `planner`, one CEM decision (H 12, I 10, J 1000, K 100; PlaNet, appendix A) for 1 environment with 6 actions, and
its share of the matrix product's rate; `train`, one update on 50 x 50 images of 64x64x3. Compilation is timed apart.
Medians with minimum and maximum over repetitions; machines are shared and noisy, so compare within one run only.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from wmjax.models import rssm
from wmjax.planners import CEMConfig, make_cem
from wmjax.run import main as mains
from wmjax.run.workdir import atomic_write, versions
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError

ONLY = flags.DEFINE_list("only", ["planner", "train"], "rows to measure: planner, train")
REPEATS = flags.DEFINE_integer("repeats", 5, "timed repetitions of each", lower_bound=1)
JSON = flags.DEFINE_string("json", None, "file for the numbers")

SPEC = EnvSpec((64, 64, 3), np.dtype(np.uint8), ActionSpec(6, False, -1.0, 1.0))
PRODUCT = 2048  # side of the matrix product


def main(argv):
    """Measures and prints a table. argv: the command line."""
    mains.parse_flags(argv)
    rows = dict(planner=planner_row, train=train_row)
    for name in ONLY.value:
        if name not in rows:
            raise UsageError(f"--only={name}: choose from {', '.join(rows)}")
    machine = versions()
    print(f"{machine['device']}, {machine['cpu_count']} cores, jax {machine['jax']}, {machine['date']}")
    results = {}
    for name in ONLY.value:
        results[name] = row = rows[name](REPEATS.value)
        print(f"{name:8} {row['ms_median']:9.1f} ms ({row['ms_min']:.1f} to {row['ms_max']:.1f})", end="")
        print(f"   compile {row['compile_s']:.1f} s   matrix product {row['product_gflops']:.0f} GFLOP/s", end="")
        print(f"   share {row['share']:.2f}" if "share" in row else "")
    if JSON.value:
        atomic_write(JSON.value, json.dumps(dict(machine=machine, rows=results), indent=1) + "\n")


def planner_row(repeats):
    """One decision; `share` is its matrix products' rate over that of a plain product measured in between."""
    model, learner = rssm.make(rssm.RSSMConfig(), SPEC)
    config = CEMConfig()
    params = learner.init(jax.random.key(0)).params
    plan = jax.jit(make_cem(model, SPEC.action, config).plan)
    row = measure(lambda: plan(params, jax.random.key(1), model.initial(params, 1)), repeats)
    used = [params[name] for name in ("input", "gru", "prior", "reward")]
    weights = sum(leaf.size for leaf in jax.tree.leaves(used) if leaf.ndim == 2)
    flops = 2 * weights * config.candidates * config.horizon * config.iterations
    return row | dict(gflop=flops / 1e9, share=flops / (row["ms_median"] * 1e6) / row["product_gflops"])


def train_row(repeats, batch=50, chunk=50):
    """One update of the paper's RSSM."""
    _, learner = rssm.make(rssm.RSSMConfig(), SPEC)
    rng, lead = np.random.default_rng(0), (batch, chunk)
    data = Step(
        prev_action=rng.uniform(-1, 1, (*lead, SPEC.action.size)).astype(np.float32),
        obs=rng.integers(0, 256, (*lead, *SPEC.obs_shape)).astype(np.uint8),
        reward=rng.uniform(size=lead).astype(np.float32),
        discount=np.ones(lead, np.float32),
        is_first=np.zeros(lead, bool),
        is_last=np.zeros(lead, bool),
    )
    state, data = jax.jit(learner.init)(jax.random.key(0)), jax.device_put(data)
    update = jax.jit(learner.update)
    row = measure(lambda: update(state, jax.random.key(1), data), repeats)
    return row | dict(frames_per_s=batch * chunk / row["ms_median"] * 1e3)


def measure(call, repeats):
    """Times call(), in turn with a matrix product, so that both see the machine's same mood."""
    product = jax.jit(lambda a: a @ a)
    square = jnp.ones((PRODUCT, PRODUCT))
    jax.block_until_ready(product(square))
    compile_s = seconds(call)
    times, rates = [], []
    for _ in range(repeats):
        rates.append(2 * PRODUCT**3 / seconds(lambda: product(square)) / 1e9)
        times.append(seconds(call) * 1e3)
    return dict(
        ms_median=float(np.median(times)),
        ms_min=min(times),
        ms_max=max(times),
        compile_s=compile_s,
        product_gflops=float(np.median(rates)),
    )


def seconds(call):
    """Seconds that call() takes until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(mains.run(main, sys.argv))
