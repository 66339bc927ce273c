"""Trains an agent that queries a model by advantage actor-critic (Buesing et al. 2018, sections 3 and 4.2).

    python -m experiments.i2a --config=experiments/i2a/config.py:minipacman:regular,uniform,cpu --workdir=runs/a \
        --config.model_run=simulator

One run in several processes: --distributed=HOST:PORT/N/I in each of them, and --config.devices=all (docs/runs.md,
"Several processes").

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""

import contextlib
import sys
from typing import Any

import jax
import numpy as np

from experiments.i2a import agent as agents
from experiments.i2a import config as configs
from experiments.i2a import phases, predictions
from experiments.training import read_command
from wmjax.agents.i2a import make_actor
from wmjax.report.metrics import appended, evaluated
from wmjax.run import cli, devices, lifecycle, pools, processes, stop
from wmjax.run.collect import make_player, play_returns
from wmjax.run.members import Member, alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import checkpoint
from wmjax.train import check_finite


def main(argv: list[str]) -> None:
    """Trains to the end, or to --minutes. argv: the command line."""
    config, folder, minutes = read_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    train, evaluation = settings.train, settings.evaluation

    # Everything that can be refused is made before the folder is touched.
    mesh = agents.make_mesh(settings)
    whole, over_rows = devices.replicated(mesh), devices.split(mesh, 1)
    spec, env = agents.spec_of(settings)
    init_key, world_key, begin_key, train_key, eval_key = agents.keys_of(settings.seed)
    world = agents.make_world(settings, spec, env, world_key)
    world = world._replace(params=processes.to_devices(jax.device_get(world.params), whole))
    made = agents.make(settings, spec, world)
    eval_env = agents.make_env(settings, evaluation.episodes, "evaluation")
    eval_env.reset()
    loop = phases.make_loop(settings, env, made, world.params, mesh)
    run = lifecycle.open_run(
        folder,
        config.to_dict() | world.identity,
        [Member(settings.task, settings.seed)],
        may_differ=configs.MAY_DIFFER,
        unit="update",
        planned=train.updates,
        minutes=minutes,
        keep=train.keep_checkpoints,
        pictures=[predictions.ROLLOUTS],
    )
    player = make_player(make_actor(made.agent), evaluation.episodes, explore=False, sharding=over_rows)
    show = predictions.make_show(world, spec)
    size = stop.dispatch_size(train.every, loop.dispatched)
    keys_of = lambda first: jax.vmap(lambda i: jax.random.fold_in(train_key, first + i))(np.arange(size))
    keys_from = jax.jit(keys_of, out_shardings=whole)

    # A run is the state below.
    learner = jax.jit(made.learner.init, out_shardings=whole)(init_key)
    playing = loop.begin(learner.params, begin_key)
    tally, began = phases.EpisodeTotals.of(train.rows), np.zeros(train.rows, bool)
    counters: dict[str, Any] = dict(updates=0, episodes=0, env_steps=0, evaluated=0)
    partial: dict[str, Any] = dict(losses={}, returns=[], lengths=[])  # since the newest line of metrics
    snapshots = dict(env=loop.snapshot(), eval_env=pools.snapshot(eval_env))
    template = dict(learner=learner, playing=playing, tally=tally, began=began, counters=counters)
    saved = run.restore(template | dict.fromkeys(("partial", *snapshots), checkpoint.AS_SAVED))
    if saved:
        learner, playing, tally, began, counters, partial = (saved[name] for name in (*template, "partial"))
        snapshots = {name: saved[name] for name in snapshots}
        loop.restore(saved["env"])
        pools.restore(eval_env, snapshots["eval_env"], evaluation.episodes)

    def hold() -> None:
        state = dict(learner=learner, playing=jax.device_put(playing, whole), tally=tally, began=began)
        run.hold(counters["updates"], state | dict(counters=dict(counters), partial=dict(partial)) | snapshots)

    def evaluate() -> dict[str, Any]:
        """Metrics of episodes in environments of their own, and a picture of what the agent imagines."""
        key = jax.random.fold_in(eval_key, counters["updates"])
        params = alone(dict(model=world.params, agent=learner.params))
        returns, film = play_returns(eval_env, player, params, key[None], Stopwatch(), predictions.FILM)
        predictions.draw(show, settings, world, learner.params["model"], folder, counters["updates"], key, film)
        return evaluated(returns)

    hold()
    while run.goes_on(counters["updates"]):
        try:
            keys = keys_from(np.int32(counters["updates"]))
            learner, playing, metrics, played = loop.advance(learner, playing, keys, run.stopwatch)
        except stop.Stopped:
            break
        check_finite(metrics, counters["updates"] + 1)
        del metrics["grad_finite"]
        counters["env_steps"] += phases.decisions(played, began) * spec.action_repeat
        tally, returns, lengths, began = tally.after(played, began)
        counters |= dict(updates=counters["updates"] + size, episodes=counters["episodes"] + len(returns))
        losses = appended(partial["losses"], metrics)
        partial = dict(losses=losses, returns=partial["returns"] + returns, lengths=partial["lengths"] + lengths)
        snapshots = snapshots | dict(env=loop.snapshot())
        if counters["updates"] % train.every == 0:
            row = phases.line(partial)
            partial = dict(losses={}, returns=[], lengths=[])
            if counters["updates"] % (train.every * evaluation.every) == 0 or counters["updates"] == train.updates:
                try:
                    with run.evaluating():
                        row |= evaluate()
                except stop.Stopped:
                    break
                snapshots = snapshots | dict(eval_env=pools.snapshot(eval_env))
                counters["evaluated"] = counters["updates"]
            run.write({name: counters[name] for name in ("updates", "episodes", "env_steps")}, [row])
            hold()
            run.save()
            if "eval/return_mean" in row and counters["updates"] < train.updates:  # the last one is written by `finish`
                run.write_reports()
        hold()

    learner, counters = run.held()["learner"], run.held()["counters"]
    run.save()
    counted = {name: counters[name] for name in ("updates", "episodes", "env_steps")}
    if run.is_cut_short(counters["updates"]) and counters["updates"] > counters["evaluated"]:
        with contextlib.suppress(stop.Stopped):
            run.write_lines([counted | evaluate()])
    run.finish(counters["updates"], counted)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
