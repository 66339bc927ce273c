"""Trains PlaNet (Hafner et al. 2019, Algorithm 1): collect an episode by planning, fit the model, again.

    python -m experiments.planet --config=experiments/planet/config.py:cheetah_run,cpu --workdir=runs/a

One agent for several tasks (Fig. 6) collects an episode of each in turn before it fits:

    ... --config.train.tasks="('reacher_easy','cartpole_swingup')"

One run in several processes, the same command in each but for its last number (docs/runs.md, "Several processes"):

    ... --distributed=HOST:PORT/2/0 --config.devices=all

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""

import contextlib
import sys
from concurrent import futures
from typing import Any

import jax
import numpy as np

from experiments.planet import agent as agents
from experiments.planet import config as configs
from experiments.planet import phases, predictions, scores
from experiments.planet.model_error import make_measures
from experiments.training import read_command
from wmjax import console, replay
from wmjax.agents.random import make_random_actor
from wmjax.report.metrics import over_tasks
from wmjax.run import cli, devices, lifecycle, pools, processes, replays, stop
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import member_keys
from wmjax.storage import checkpoint
from wmjax.train import acting_params


def main(argv: list[str]) -> None:
    """Runs Algorithm 1 to its end, or to --minutes. argv: the command line."""
    config, folder, minutes = read_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    members, train, evaluation = settings.members, settings.train, settings.evaluation
    tasks, labels = settings.tasks, agents.labels(settings.tasks)

    # Everything that can be refused is made before the folder is touched.
    mesh, specs, spec, example, agent = agents.prepare(settings)
    measures = make_measures(settings, agent.model, spec.action)
    replays.check_memory(train.capacity, train.num_envs, example, len(members), mesh)
    train_envs = pools.envs_of(tasks, train.num_envs, settings.env, spec.action.size)
    eval_envs = pools.envs_of(tasks, evaluation.episodes, settings.env, spec.action.size, purpose="evaluation")
    for env in (*train_envs.values(), *eval_envs.values()):
        env.reset()  # a checkpoint may come before their first episodes
    gigabytes = len(members) * replay.nbytes(train.capacity, example) / 1e9
    console.say(f"replay: {train.capacity} rows for {len(members) * train.num_envs} environments, {gigabytes:.2f} GB")
    memory = replays.make_memory(train.capacity, train.num_envs, example, len(members), mesh)
    run = lifecycle.open_run(
        folder,
        config.to_dict(),
        members,
        may_differ=configs.MAY_DIFFER,
        unit="episode",
        planned=train.episodes,
        minutes=minutes,
        keep=train.keep_checkpoints,
        pictures=predictions.pictures(labels),
    )
    if len(tasks) == 1:  # of a mean over tasks nothing is published
        lifecycle.write_references(run.member_folders, [scores.references(each.task, settings.env) for each in members])

    whole, over_rows = devices.replicated(mesh), devices.split(mesh, 1)
    owners = [folder.name if len(members) > 1 else "" for folder in run.member_folders]
    updates = train.updates_per_episode * train.num_envs * len(tasks)  # for the episodes of one pass
    fit = phases.make_fit(agent.learner, train, mesh, updates, owners)
    extend = replays.make_extend(memory)
    explorer = make_player(agent.actor, train.num_envs, explore=True, sharding=over_rows)
    randomly = make_player(make_random_actor(spec.action), train.num_envs, explore=True, sharding=over_rows)
    greedy = make_player(agent.actor, evaluation.episodes, explore=False, sharding=over_rows)
    predict = predictions.make_predict(agent, spec)
    init_keys, collect_keys, train_keys, eval_keys = member_keys(members, 4)
    fold_in = jax.jit(jax.vmap(jax.random.fold_in, (0, None)), out_shardings=whole)

    # A run is the state below; plays counts the calls of play_episodes and so the replay's files.
    learner = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(init_keys)
    counters: dict[str, Any] = dict(
        plays=0, episodes=0, env_steps=0, evaluated=0, kept=0
    )  # evaluated: updates before the newest evaluation; kept: evaluation plays
    template = dict(learner=learner, counters=counters, env=checkpoint.AS_SAVED, eval_env=checkpoint.AS_SAVED)
    saved = run.restore(template)
    if saved:
        learner, counters = saved["learner"], saved["counters"]
        for task in tasks:
            pools.restore(train_envs[task], saved["env"][task], train.num_envs)
            pools.restore(eval_envs[task], saved["eval_env"][task], evaluation.episodes)
        for steps in checkpoint.load_rows(folder, counters["plays"]):
            memory = extend(memory, steps)
    run.drop_rows_from(counters["plays"])
    run.drop_rows_from(counters["kept"], checkpoint.EVALUATION)
    trainer = futures.ThreadPoolExecutor(1)
    in_turn = not train.overlap or processes.count() > 1  # in which all have to start the same programs in one order

    def counted() -> dict[str, Any]:
        """The axes of every metric."""
        return dict(env_steps=counters["env_steps"], episodes=counters["episodes"], updates=updated())

    def updated() -> int:
        """The updates of every member so far."""
        return int(np.asarray(learner.updates)[0])

    def evaluate() -> list[dict[str, Any]]:
        """Plays the evaluation episodes of every task: metrics of each member."""
        params, found = acting_params(learner), {}
        for back, (task, env) in enumerate(eval_envs.items()):
            keys = fold_in(eval_keys, counters["plays"] - back)  # no two alike: a pass has a play for every task
            name = f"episode_{counters['episodes']:06d}{labels[task]}"
            shown = (run.member_folders, name, env, greedy, predict, params, keys, measures[task])
            found[task], steps = predictions.evaluate(*shown)
            if evaluation.keep:
                run.append_rows(counters["kept"], steps, checkpoint.EVALUATION)
                counters["kept"] += 1
        return over_tasks(found)

    def hold() -> None:
        """A run that is stopped in the next pass goes back to here."""
        snapshots = [{task: pools.snapshot(env) for task, env in each.items()} for each in (train_envs, eval_envs)]
        state = dict(learner=learner, counters=dict(counters), env=snapshots[0], eval_env=snapshots[1])
        run.hold(counters["episodes"], state)

    hold()
    while run.goes_on(counters["episodes"]):
        seeding = counters["episodes"] < train.seed_episodes * len(tasks)
        rows: list[dict] = [{} for _ in members]  # of metrics
        params, fitting, played = acting_params(learner), None, {}
        try:
            if not seeding:
                agents.check_chunk(train, memory)
                fitting = trainer.submit(fit, learner, memory, fold_in(train_keys, counters["plays"]))
                if in_turn:
                    with run.stopwatch("update"):
                        futures.wait([fitting])
                if not train.overlap:
                    params = acting_params(fitting.result()[0])
            player = randomly if seeding or train.collect == "random" else explorer
            for ahead, (task, env) in enumerate(train_envs.items()):
                keys = fold_in(collect_keys, counters["plays"] + ahead)
                played[task] = play_episodes(env, player, params, keys, run.stopwatch)
            if fitting:
                with run.stopwatch("update"):  # what is left of it, where it ran beside the episodes
                    learner, rows = fitting.result()
        except stop.Stopped:
            break
        before = counters["episodes"]
        for task, (steps, _) in played.items():
            with run.stopwatch("replay"):
                memory = extend(memory, steps)
                run.append_rows(counters["plays"], steps)
            counters["plays"] += 1
            counters["episodes"] += train.num_envs
            counters["env_steps"] += (len(steps.reward) - 1) * train.num_envs * specs[task].action_repeat
        collected = {task: np.split(returns, len(members)) for task, (_, returns) in played.items()}
        collected = {task: [{"collect/return": own.mean()} for own in each] for task, each in collected.items()}
        rows = [row | own for row, own in zip(rows, over_tasks(collected), strict=True)]

        last = counters["episodes"] >= train.episodes
        evaluating = not seeding and (last or passes(before, counters["episodes"], evaluation.every))
        if evaluating:
            try:
                with run.evaluating():
                    rows = [row | own for row, own in zip(rows, evaluate(), strict=True)]
            except stop.Stopped:
                break
            counters["evaluated"] = updated()
        run.write(counted(), rows)
        hold()
        if last or passes(before, counters["episodes"], train.checkpoint_every):
            run.save()
        if evaluating and not last:  # the last one is written by `finish`
            run.write_reports()

    trainer.shutdown()
    learner, counters = run.held()["learner"], run.held()["counters"]
    run.save()
    if run.is_cut_short(counters["episodes"]) and updated() > counters["evaluated"]:
        with contextlib.suppress(stop.Stopped):
            run.write_lines([counted() | row for row in evaluate()])
    run.finish(counters["episodes"], counted())


def passes(before: int, after: int, every: int) -> bool:
    """True when a counter that went from `before` to `after` passed a multiple of `every`."""
    return after // every > before // every


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
