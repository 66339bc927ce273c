"""One decision at the paper's planner setting (H 12, I 10, J 1000, K 100; PlaNet, appendix A), 6 actions."""

from collections.abc import Iterator
from typing import Any

import jax

from experiments.benchmark import rivals
from experiments.benchmark.data import FLOAT, SPEC, planet, with_dtype
from wmjax import backend
from wmjax.models import rssm
from wmjax.planners import CEMConfig, make_cem
from wmjax.report.benchmark import Work, compiled

ACCELERATOR = [("rssm", 1), ("rssm", 16), ("rssm", 64)]
SIZES = dict(
    quick=[("rssm", 1)],
    paper=[("rssm", 1), ("rssm", 8), ("rssm", 64), ("ssm", 1), ("ssm", 8), ("rnn", 1), ("rnn", 8)],
    accelerator=ACCELERATOR,
    dry=ACCELERATOR,
)
SEARCH = dict(dry=CEMConfig(horizon=3, iterations=2, candidates=10, elites=2))  # of the others: the paper's
SMALL = CEMConfig(iterations=4, candidates=64, elites=8)  # as in PlaNet's `cpu`, whose evaluations plan for 5 at once
SMALL_ROWS = dict(quick=(1, 5), paper=(1, 5))
RIVAL_ROWS = dict(quick=(1, 8), paper=(1, 8))


def works(preset: str) -> Iterator[Work]:
    """CEM with each latent model for 1 to 64 environments."""
    for kind, rows in SIZES[preset]:
        ours = decision(preset, kind, rows)
        yield ours
        if kind == "rssm" and rows in RIVAL_ROWS.get(preset, ()):
            yield from rivals.decisions(ours, rows, CEMConfig(), SPEC)
    for rows in SMALL_ROWS.get(preset, ()):
        yield decision(preset, "rssm", rows, search=SMALL)


def decision(preset: str, kind: str, rows: int, dtype: str = FLOAT, search: CEMConfig | None = None) -> Work:
    """The Work of planning for `rows` environments from the initial belief. search: None, that of the preset."""
    config, spec = planet(preset, kind=kind, compute_dtype=dtype)
    model, learner = rssm.make(config, spec)
    planner = make_cem(model, spec.action, search or SEARCH.get(preset, CEMConfig()))

    def args() -> tuple[Any, ...]:
        params = jax.jit(learner.init)(jax.random.key(0)).params
        return params, jax.random.key(1), model.initial(params, rows)

    if search:
        kind += f", {search.candidates} sequences"
    name = with_dtype(f"{kind}, {rows} env{'s' if rows > 1 else ''}", dtype)
    plan = jax.jit(planner.plan, compiler_options=backend.acting_options())
    return compiled(name, plan, args, {"decisions": rows}, kind=kind, envs=rows, dtype=dtype)
