"""What a design costs: parameters, operations and time of a decision and of an update (Tables 6 and 7)."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import runs
from experiments.planet.agent import Agent, make_agent, random_steps, read_settings, spec_of
from experiments.published import read
from experiments.trade_offs import config as configs
from wmjax import backend
from wmjax.report import benchmark
from wmjax.report.markup import markdown
from wmjax.run import jobs
from wmjax.types import Array, Params, Step

FOLDER = pathlib.Path(__file__).parent
EPISODE = 250  # decisions of an episode: the paper's "inference step", to judge by its seconds
UPDATES = 100  # its "training step"


def measure(task: str, design: str, preset: str, overrides: Sequence[str] = (), timed: bool = True) -> dict[str, Any]:
    """The cost of a design: dict of numbers.

    A decision's time is that of one iteration of the planner times its iterations: in images, at the paper's size, a
    whole one takes minutes on a CPU. Operations are those of the whole.

    Args: overrides: ["model.hidden=8"] beside the preset; timed: False for parameters and operations alone, which
      compile nothing.
    """
    settings = read_settings(read_config(task, design, preset, overrides))
    spec = spec_of(settings)
    whole = make_agent(settings, spec)
    state = jax.eval_shape(whole.learner.init, jax.random.key(0))
    step, batch = (random_steps(spec, lead) for lead in ((1,), (settings.train.batch, settings.train.chunk)))
    found = dict(
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        action_repeat=spec.action_repeat,
        decisions=spec.time_limit or EPISODE,  # of an episode
        decision_gflop=benchmark.gflops(*decision(whole, state.params, step)),
        update_gflop=benchmark.gflops(whole.learner.update, state, jax.random.key(0), batch),
    )
    if not timed:
        return found
    state = jax.jit(whole.learner.init)(jax.random.key(0))
    short = make_agent(settings._replace(planner=dataclasses.replace(settings.planner, iterations=1)), spec)
    decide, *args = decision(short, state.params, step)
    decide = jax.jit(decide, compiler_options=backend.acting_options())
    act = benchmark.measure(benchmark.compiled("decision", decide, args, {}), 5)
    train = benchmark.compiled("update", whole.learner.update, (state, jax.random.key(0), batch), {})
    return found | dict(
        decision_ms=act["ms"] * settings.planner.iterations, update_ms=benchmark.measure(train, 5)["ms"]
    )


def read_config(task: str, design: str, preset: str, overrides: Sequence[str]) -> ConfigDict:
    """The ConfigDict of a design as PlaNet's main reads it from its command line."""
    config = f"{configs.__file__}:{task},{design},{preset}"
    return runs.read_config(jobs.training("experiments.planet", "", config, overrides), __name__)


def decision(agent: Agent, params: Params, step: Step) -> tuple[Callable, Params, Array, Step]:
    """(function, arguments) of one decision of one environment."""

    def act(params: Params, key: Array, step: Step) -> Array:
        return agent.actor.act(params, key, agent.actor.initial(params, 1), step, False)[1]

    return act, params, jax.random.key(0), step


def lines(costs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Table 6. costs: `measure` by design."""
    published = read(FOLDER / "published" / "cost.csv")
    rows = []
    for design, cost in costs.items():
        paper = published.get(design)
        rows.append(
            [
                design,
                f"{cost['parameters']:,}",
                f"{paper['parameters']:,.0f}" if paper else "-",
                f"{cost['update_gflop']:,.2f}",
                f"{cost['update_ms'] * UPDATES / 1e3:.1f}",
                f"{paper['training_s']:g} on {paper['cards']:g}" if paper else "-",
                f"{cost['decision_gflop']:,.2f}",
                f"{cost['decision_ms'] * EPISODE / 1e3:.1f}",
                f"{paper['inference_s']:g} on {paper['cards']:g}" if paper else "-",
            ]
        )
    header = ["", "parameters", "published", "GFLOP an update", f"s for {UPDATES} updates", "published, V100 cards"]
    header += ["GFLOP a decision", f"s for {EPISODE} decisions", "published, V100 cards"]
    legend = "The time of a decision is that of one iteration of the planner times their number."
    return [legend, "", *markdown(header, rows)]


def worth(costs: Mapping[str, dict[str, Any]], scores: Mapping[str, float], task: str) -> list[str]:
    """Table 7: scores by the seconds of an episode; published, too for each card. scores: {design: mean score}."""
    published, paper = read(FOLDER / "published" / "cost.csv"), read(FOLDER / "published" / "online_scores.csv")
    rows = []
    for design in [each for each in costs if each in scores]:
        seconds = costs[design]["decision_ms"] * costs[design]["decisions"] / 1e3
        row = [design, f"{scores[design] / seconds:.2f}", "-", "-"]
        if design in published and task in paper[design]:
            known = paper[design][task] / published[design]["inference_s"]
            row[2:] = [f"{known:.2f}", f"{known / published[design]['cards']:.2f}"]
        rows.append(row)
    return markdown(["", "score a second of acting", "published", "published, for each card"], rows)
