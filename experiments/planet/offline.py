"""Trains a model on the episodes of finished runs, without playing, and predicts the rewards of other episodes.

    python -m experiments.planet.offline --config=experiments/planet/config.py:cheetah_run,cpu --workdir=runs/o \\
        --train=runs/a,runs/b --test=runs/a,runs/b --updates=2000

The model learns the collected episodes of --train. It is tested on the evaluation episodes of --test that were kept
(config.evaluation.keep), or on the collected ones of a run that kept none. No episode may be in both. Every --every
updates the predicted rewards of all windows of both are compared with the true ones (windows.py): `train/...` and
`eval/...` of metrics.jsonl, and the counts of (true, predicted) in predictions.npz. At the end config.evaluation.episodes
episodes are played with the planner: summary.json has the 90th percentile and the mean of their returns.

With --below=X the model learns only pieces of episodes whose rewards are all below X (optimism, trade-offs study).
The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75), and
`experiments.evaluate` plays its agent.
"""  # noqa: E501

import contextlib
import io
import json
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from experiments import training
from experiments.planet import agent as agents
from experiments.planet import config as configs
from experiments.planet import phases, pool, predictions, windows
from experiments.planet.config import TrainConfig
from wmjax import console, replay
from wmjax.report.metrics import appended, read_metrics
from wmjax.run import cli, devices, lifecycle, pools, replays, stop
from wmjax.run.collect import make_player
from wmjax.run.members import member, member_keys
from wmjax.storage import checkpoint
from wmjax.storage.files import check_place, write_whole
from wmjax.train import acting_params, check_finite, make_phase
from wmjax.types import Array, EnvSpec, Learner, Params, Step, UsageError, WorldModel

SAVE_MINUTES = 5
PERCENTILE = 90  # of the returns: the trade-offs study's offline score
SCORE = "eval/return_percentile_90"
PREDICTIONS = "predictions.npz"
SHOWN = 2  # rows of a piece beyond the horizon: the most that the chunk of any design has, so all learn the same pieces
MAY_DIFFER = (*configs.MAY_DIFFER, "offline.updates")


class Data(NamedTuple):
    """What is learned, and what the model is tested on."""

    pools: dict[str, dict]  # digest, episodes and rows of both pools, train and eval
    learned: list[Step]  # episodes or pieces of them, [T, 1] each
    tested: dict[str, list[Step]]  # by the names of the pools: the episodes that have windows


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    training.define_flags(configs.USAGE, values, argv)
    cli.paths_flag(values, "train", "folders of runs whose episodes are learned")
    cli.paths_flag(values, "test", "folders of runs whose rewards are asked for")
    cli.int_flag(values, "updates", 2000, "updates in all, a multiple of --every", 1, 10**9)
    cli.int_flag(values, "every", 500, "updates between measurements", 1, 10**6)
    flags.DEFINE_float("below", None, "learn only where all rewards are below this", flag_values=values)
    flags.DEFINE_float(
        "above", None, "measure only from states whose last four rewards average above this", flag_values=values
    )


def main(argv: list[str]) -> None:
    """Trains to the end, or to --minutes. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__, configs)
    check_options(options)
    cli.use_jax()
    settings = agents.read_settings(options.config)
    mesh = devices.make_mesh(settings.devices)
    check_one_agent(settings, mesh)

    # Everything that can be refused is made before the folder is touched.
    spec = agents.spec_of(settings)
    agent = agents.make_agent(settings, spec)
    data = read_data(options, settings, spec)
    memory = fill(data.learned, mesh)
    agents.check_chunk(settings.train, memory)
    run = open_run(options, settings, data)
    init_keys, train_keys, measure_keys, play_keys = member_keys(settings.members, 4)
    size = stop.dispatch_size(options.every, phases.DISPATCHED)
    train = make_train(agent.learner, settings.train, mesh, memory, size, train_keys)
    measure = make_measure(agent.model, settings, spec, data, options, measure_keys[0])

    def look(state: dict[str, Any], last: bool) -> dict[str, Any]:
        """A row of metrics: the mean losses, what is measured, and at the end what is played."""
        params = acting_params(state["learner"])
        row = {f"train/{name}": x.mean() for name, x in state["losses"].items()} | measure(member(params, 0))
        run.progress.note(json.dumps({name: float(f"{x:.4g}") for name, x in row.items()}))
        name = f"update_{state['counters']['updates']:07d}"
        return row | (play(run.folder, name, agent, settings, spec, params, play_keys) if last else {})

    # A run is its state. losses: of the updates since the newest measurement, which came after `measured` ones.
    learner = jax.jit(jax.vmap(agent.learner.init), out_shardings=devices.replicated(mesh))(init_keys)
    begun = dict(learner=learner, counters=dict(updates=0, measured=0), losses={})
    state = run.restore(begun | dict(losses=checkpoint.AS_SAVED)) or begun
    counters = train_and_look(run, state, train, look, options)["counters"]
    run.finish(counters["measured"], dict(updates=counters["updates"]) | results(run.folder, settings, data))


def train_and_look(
    run: lifecycle.Run, state: dict[str, Any], train: Callable, look: Callable, options: Any
) -> dict[str, Any]:
    """The loop of a run, and the last look of one whose minutes are over. Returns: its last state.

    Args: state: where it begins; train: of `make_train`; look: (state, whether it is the last one) -> row of metrics.
    """
    run.hold(state["counters"]["updates"], state)
    while run.goes_on(state["counters"]["measured"]):
        updates, measured = state["counters"]["updates"], state["counters"]["measured"]
        if updates - measured < options.every:
            with run.stopwatch("train"):
                state = train(state)
            run.hold(state["counters"]["updates"], state)
            run.progress.phase("training", state["counters"]["updates"] - measured, options.every)
            if run.minutes_unsaved() >= SAVE_MINUTES:
                run.save()
            continue

        run.save()  # first: what follows may fail, and repeating it costs little
        try:
            with run.evaluating():
                row = look(state, updates >= options.updates)
        except stop.Stopped:
            break
        run.write(dict(updates=updates), [row])
        state = state | dict(counters=dict(updates=updates, measured=updates), losses={})
        run.hold(updates, state)

    run.save()
    if run.is_cut_short(state["counters"]["measured"]):
        with contextlib.suppress(stop.Stopped):
            run.write_lines([dict(updates=state["counters"]["updates"]) | look(state, True)])
    return state


def check_options(options: Any) -> None:
    """Raises UsageError for flags that are missing or do not fit each other."""
    if options.config is None or options.workdir is None or not options.train or not options.test:
        raise UsageError(f"give --config={configs.USAGE}, --train=DIR,..., --test=DIR,... and --workdir=DIR")
    check_place(options.workdir)
    if options.distributed != "off":
        raise UsageError(f"--distributed={options.distributed}: offline training is one process, as config.devices=1")
    if options.updates % options.every:
        raise UsageError(f"--updates={options.updates}: must be a multiple of --every={options.every}")
    for name in ("below", "above"):
        if not math.isfinite(options[name].value or 0.0):
            raise UsageError(f"--{name}={options[name].value}: must be finite")


def check_one_agent(settings: agents.Settings, mesh: Mesh) -> None:
    """Raises UsageError unless the config is of one agent, one task and one device."""
    if len(settings.members) > 1 or len(settings.tasks) > 1:
        raise UsageError(
            "config.task, config.population, config.train.tasks: one task and one seed are trained offline"
        )
    if mesh.size > 1:
        raise UsageError(f"config.devices={settings.devices}: offline training takes 1")


def read_data(options: Any, settings: agents.Settings, spec: EnvSpec) -> Data:
    """The Data of --train and --test; says what is in them. Raises: UsageError where it cannot be used."""
    found = dict(train=pool.read(options.train, pool.TRAIN, spec), eval=pool.read(options.test, pool.TEST, spec))
    pool.check_disjoint(found["train"], found["eval"])
    sets = {name: [each.steps for each in own.values()] for name, own in found.items()}
    pools = {
        name: dict(episodes=len(own), rows=rows(own), digest=pool.digest(found[name])) for name, own in sets.items()
    }
    for name, contents in pools.items():
        console.say(f"{name}: {contents['episodes']} episodes, {contents['rows']} rows, sha256 {contents['digest']}")
    chunk, horizon = settings.train.chunk, settings.planner.horizon
    if options.below is not None:
        least = max(chunk, horizon + SHOWN)
        sets["train"] = [x for steps in sets["train"] for x in pool.pieces_below(steps, options.below, least)]
        if not sets["train"]:
            raise UsageError(f"--below={options.below}: no {least} rows of --train have such rewards")
        console.say(f"learned: {rows(sets['train'])} rows with rewards below {options.below}")
    tested = {}
    for name, own in sets.items():
        tested[name] = [steps for steps in own if windows.counted(steps, horizon, options.above).any()]
        if not tested[name]:
            above = "" if options.above is None else f", or no rewards above {options.above}"
            raise UsageError(f"config.planner.horizon={horizon}: --{name} has no episode with so many decisions{above}")
    return Data(pools, sets["train"], tested)


def rows(episodes: Sequence[Step]) -> int:
    """Rows of a list of Step [T, 1]."""
    return sum(len(steps.reward) for steps in episodes)


def fill(episodes: Sequence[Step], mesh: Mesh) -> replay.Replay:
    """The replay of a population of one that holds a list of Step [T, 1], in order."""
    memory = replays.make_memory(rows(episodes), 1, member(episodes[0], 0), 1, mesh)
    extend = replays.make_extend(memory)
    for steps in episodes:
        memory = extend(memory, steps)
    return memory


def open_run(options: Any, settings: agents.Settings, data: Data) -> lifecycle.Run:
    """The open Run. The digests of the pools are in its config: it resumes with the same episodes alone."""
    asked = {name: options[name].value for name in ("updates", "every", "below", "above")}
    return lifecycle.open_run(
        pathlib.Path(options.workdir),
        options.config.to_dict() | dict(offline=asked | {name: own["digest"] for name, own in data.pools.items()}),
        settings.members,
        may_differ=MAY_DIFFER,
        unit="update",
        planned=options.updates,
        minutes=options.minutes,
        keep=settings.train.keep_checkpoints,
        pictures=predictions.pictures(agents.labels(settings.tasks)),
    )


def make_train(
    learner: Learner, train: TrainConfig, mesh: Mesh, memory: replay.Replay, size: int, keys: Array
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function state -> state of the run, `size` updates later; the state's learner is donated.

    An update's key depends on its number and on keys [1]. Raises: NonFiniteError.
    """
    whole = devices.replicated(mesh)
    phase = make_phase(phases.make_update(learner, train, mesh), donate=True, sharding=whole)
    numbered = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))  # [C, 1]
    keys_of = jax.jit(lambda done: numbered(keys, done + np.arange(size)), out_shardings=whole)

    def advance(state: dict[str, Any]) -> dict[str, Any]:
        done, losses = state["counters"]["updates"], state["losses"]
        own = keys_of(np.int32(done))
        with devices.no_transfers():
            after, metrics = jax.block_until_ready(phase(state["learner"], memory, own))
        metrics = member(jax.device_get(metrics), (slice(None), 0))
        check_finite(metrics, done + 1)
        del metrics["grad_finite"]
        losses = appended(losses, metrics)
        return dict(learner=after, counters=state["counters"] | dict(updates=done + size), losses=losses)

    return advance


def make_measure(
    model: WorldModel, settings: agents.Settings, spec: EnvSpec, data: Data, options: Any, key: Array
) -> Callable[[Params], dict[str, float]]:
    """A function params -> {"train/...", "eval/...": number} of all windows; it writes predictions.npz too."""
    longest = max(len(steps.reward) for own in data.tested.values() for steps in own)
    predict = windows.make_predict(model, spec.action, settings.planner.horizon, longest)
    limits = dict(eval=options.below)  # nothing that is learned is above it

    def measure(params: Params) -> dict[str, float]:
        found = {name: windows.measure(predict, params, key, own, options.above) for name, own in data.tested.items()}
        if settings.family != "rssm":  # of r and ot_lr the reward of a state is not of the image that it has seen
            found = {name: own._replace(seen=None) for name, own in found.items()}
        console.try_drawing(write_predictions, pathlib.Path(options.workdir) / PREDICTIONS, found)
        measured = {name: windows.metrics(own, limits.get(name)) for name, own in found.items()}
        return {f"{name}/{metric}": x for name, own in measured.items() for metric, x in own.items()}

    return measure


def write_predictions(path: pathlib.Path, sets: dict[str, windows.Windows]) -> None:
    """Writes `windows.histograms` as a file of arrays."""
    content = io.BytesIO()
    arrays: dict[str, Any] = windows.histograms(sets)
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def play(
    folder: pathlib.Path,
    name: str,
    agent: agents.Agent,
    settings: agents.Settings,
    spec: EnvSpec,
    params: Params,
    keys: Array,
) -> dict[str, Any]:
    """Metrics of config.evaluation.episodes episodes with the planner, as of `predictions.evaluate`, and the score."""
    rows = settings.evaluation.episodes
    (env,) = pools.envs_of(settings.tasks, rows, settings.env, spec.action.size, purpose="evaluation").values()
    player = make_player(agent.actor, rows, explore=False)
    with contextlib.closing(env):
        predict = predictions.make_predict(agent, spec)
        (row,), _ = predictions.evaluate([folder], name, env, player, predict, params, keys)
    return row | {SCORE: score([row[f"eval/return_{i}"] for i in range(rows)])}


def score(returns: Sequence[float]) -> float:
    """The 90th percentile of returns, between two of them where none is it."""
    return float(np.percentile(returns, PERCENTILE))


def results(folder: pathlib.Path, settings: agents.Settings, data: Data) -> dict[str, Any]:
    """What summary.json tells of the pools, of the newest measurement and of the episodes that were played."""
    rows = read_metrics(folder)
    newest = rows[-1] if rows else {}
    measured = {name: x for name, x in newest.items() if name.startswith(("train/", "eval/"))}
    episodes = settings.evaluation.episodes if SCORE in newest else 0
    played = dict(percentile_90=newest.get(SCORE), mean=newest.get("eval/return_mean"), episodes=episodes)
    return dict(pools=data.pools, newest=measured, score=played)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
