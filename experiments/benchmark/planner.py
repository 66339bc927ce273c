"""One decision at the paper's planner setting (H 12, I 10, J 1000, K 100; PlaNet, appendix A), 6 actions."""

from collections.abc import Iterator

import jax

from experiments.benchmark import rivals
from experiments.benchmark.data import SPEC
from wmjax.models import rssm
from wmjax.planners import CEMConfig, make_cem
from wmjax.report.benchmark import Work, compiled

SIZES = dict(
    quick=[("rssm", 1)],
    paper=[("rssm", 1), ("rssm", 8), ("rssm", 64), ("ssm", 1), ("ssm", 8), ("rnn", 1), ("rnn", 8)],
)
RIVAL_ROWS = (1, 8)


def works(preset: str) -> Iterator[Work]:
    """CEM with each latent model for 1, 8 and 64 environments."""
    for kind, rows in SIZES[preset]:
        model, learner = rssm.make(rssm.RSSMConfig(kind=kind), SPEC)
        planner = make_cem(model, SPEC.action, CEMConfig())
        params = learner.init(jax.random.key(0)).params
        state = model.initial(params, rows)
        name = f"{kind}, {rows} env{'s' if rows > 1 else ''}"
        args = (params, jax.random.key(1), state)
        ours = compiled(name, planner.plan, args, {"decisions": rows}, kind=kind, envs=rows)
        yield ours
        if kind == "rssm" and rows in RIVAL_ROWS and rivals.installed("torchrl"):
            yield rivals.torchrl_planner(ours, rows, CEMConfig(), SPEC.action.size)
