"""Trains PlaNet (Hafner et al. 2019, Algorithm 1): collect an episode by planning, fit the model, again.

    python -m experiments.planet --config=experiments/planet/config.py:cheetah_run,cpu --workdir=runs/a

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""

import contextlib
import pathlib
import sys
import time
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_flags

from experiments.planet import config as configs
from experiments.planet import parts, scores
from experiments.planet.config import MAY_DIFFER
from wmjax import console, replay
from wmjax.agents.random import make_random_actor
from wmjax.report.metrics import MetricsWriter
from wmjax.report.progress import Progress
from wmjax.report.video import check_ffmpeg
from wmjax.run import cli, devices, lifecycle, pools, replays, stop
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import mean_of, member, member_keys
from wmjax.run.stopwatch import Timers
from wmjax.storage import checkpoint
from wmjax.train import check_finite
from wmjax.types import UsageError

CONFIG = config_flags.DEFINE_config_file("config", help_string="experiments/planet/config.py:<task>,<preset>")
WORKDIR = cli.path_flag("workdir", "folder of the run")
MINUTES = cli.define_minutes("stop in order after this many minutes, with a last evaluation")


def main(argv):
    """Runs Algorithm 1 to its end, or to --minutes. argv: the command line."""
    cli.parse_flags(argv, __name__, configs)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UsageError("give --config=experiments/planet/config.py:<task>,<preset> and --workdir=DIR")
    cli.use_jax()
    chosen = parts.settings(CONFIG.value)
    train, evaluation = chosen.train, chosen.evaluation
    folder = pathlib.Path(WORKDIR.value)

    # Everything that can be refused is made before the folder is touched.
    mesh = devices.make_mesh(chosen.devices)
    spec, example = pools.first_step(chosen.members, train.num_envs, chosen.env)
    agent = parts.make_agent(chosen, spec)
    capacity = train.replay_rows // train.num_envs
    parts.check_lengths(train, spec, capacity)
    parts.check_devices(chosen, mesh)
    replays.check_memory(capacity, train.num_envs, example, len(chosen.members), mesh)
    env = pools.join_envs(chosen.members, train.num_envs, chosen.env)
    eval_env = pools.join_envs(chosen.members, evaluation.episodes, chosen.env, purpose="evaluation")
    env.reset(), eval_env.reset()  # a checkpoint may come before their first episodes
    gigabytes = len(chosen.members) * replay.nbytes(capacity, example) / 1e9
    console.say(f"replay: {capacity} rows for {len(chosen.members) * train.num_envs} environments, {gigabytes:.2f} GB")
    memory = replays.make_memory(capacity, train.num_envs, example, len(chosen.members), mesh)
    members = lifecycle.open_folders(folder, CONFIG.value, chosen.members, MAY_DIFFER)
    stop.listen()
    console.try_drawing(check_ffmpeg)
    lifecycle.write_references(members, [scores.references(each.task, chosen.env) for each in chosen.members])

    whole, over_rows = devices.replicated(mesh), devices.split(mesh, 1)
    updates = train.updates_per_episode * train.num_envs
    size = stop.dispatch_size(updates, parts.DISPATCHED)
    train_phase = parts.make_train_phase(agent.learner, train, size, mesh)
    by_dispatch = jax.jit(
        lambda keys: tuple(jax.vmap(lambda key: jax.random.split(key, updates // size))(keys).T), out_shardings=whole
    )

    def fit(learner, acting, memory, keys):
        """Waits for a phase: (learner, acting, metrics rows of the members); NonFiniteError where one is not finite."""
        first = int(learner.updates[0]) + 1
        losses = []
        for each in by_dispatch(keys):
            stop.check()
            with devices.no_transfers():
                (learner, acting), some = jax.block_until_ready(train_phase(learner, acting, memory, each))
            losses.append(jax.device_get(some))
        losses = jax.tree.map(lambda *some: np.concatenate(some), *losses)
        rows = [member(losses, (slice(None), i)) for i in range(len(members))]
        for place, row in zip(members, rows, strict=True):
            check_finite(row, member(learner.params, 0), first, of=place.name if len(members) > 1 else "")
        means = [{f"train/{name}": x.mean() for name, x in row.items() if name != "grad_finite"} for row in rows]
        return learner, acting, means

    extend = replays.make_extend(memory)
    explorer = make_player(agent.actor, train.num_envs, explore=True, place=over_rows)
    randomly = make_player(make_random_actor(spec.action), train.num_envs, explore=True, place=over_rows)
    greedy = make_player(agent.actor, evaluation.episodes, explore=False, place=over_rows)
    init_keys, collect_keys, train_keys, eval_keys = member_keys(chosen.members, 4)
    fold_in = jax.jit(jax.vmap(jax.random.fold_in, (0, None)), out_shardings=whole)

    # A run is the state below; plays counts the calls of play_episodes and so the replay's files.
    learner = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(init_keys)
    acting = jax.tree.map(jnp.copy, learner.params)
    counters: dict[str, Any] = dict(plays=0, episodes=0, env_steps=0, metrics_bytes=[0] * len(members), minutes=0.0)
    counters |= dict(evaluated=0)  # updates before the newest evaluation
    predict = parts.make_predict(agent, spec)
    template = dict(
        learner=learner, acting=acting, counters=counters, env=checkpoint.AS_SAVED, eval_env=checkpoint.AS_SAVED
    )
    restored = checkpoint.restore_latest(folder, template)
    if restored:
        learner, acting, counters = (restored[1][name] for name in ("learner", "acting", "counters"))
        env.restore(restored[1]["env"])
        eval_env.restore(restored[1]["eval_env"])
        for steps in checkpoint.load_rows(folder, counters["plays"]):
            memory = extend(memory, steps)
        console.say(f"resumed after episode {counters['episodes']}")
    checkpoint.drop_rows_from(folder, counters["plays"])
    metrics = [MetricsWriter(*each) for each in zip(members, counters["metrics_bytes"], strict=True)]
    progress = Progress(train.episodes, MINUTES.value, done_minutes=counters["minutes"])
    timers = Timers()
    if not restored:
        lifecycle.write_reports(folder, members)

    trainer = futures.ThreadPoolExecutor(1)
    row_begun = time.monotonic()
    took = None  # seconds of the newest evaluation

    def evaluate():
        """Plays the evaluation episodes: metrics of each member."""
        keys, name = fold_in(eval_keys, counters["plays"]), f"episode_{counters['episodes']:06d}"
        return parts.evaluate(members, name, eval_env, greedy, predict, acting, keys)

    def present():
        """What a checkpoint holds, as it is now; a run that is stopped in the next episode goes back to it."""
        now = dict(metrics_bytes=[writer.offset for writer in metrics], minutes=progress.elapsed_minutes())
        snapshots = dict(env=env.snapshot(), eval_env=eval_env.snapshot())
        return dict(learner=learner, acting=acting, counters=counters | now) | snapshots

    def save():
        checkpoint.save(folder, state["counters"]["episodes"], state, keep=train.keep_checkpoints)

    state, saved = present(), True
    while counters["episodes"] < train.episodes and not stop.asked() and not progress.out_of_time(took):
        seeding = counters["episodes"] < train.seed_episodes
        rows: list[dict] = [{} for _ in members]  # of metrics

        player_params, fitting = acting, None
        try:
            if not seeding:
                parts.check_chunk(train, memory)
                keys = fold_in(train_keys, counters["plays"])
                fitting = trainer.submit(fit, learner, acting, memory, keys)
                if not train.overlap:
                    with timers("update"):
                        player_params = fitting.result()[1]

            player = randomly if seeding or train.collect == "random" else explorer
            keys = fold_in(collect_keys, counters["plays"])
            steps, returns = play_episodes(env, player, player_params, keys, timers)
            if fitting:
                with timers("update"):  # what is left of it, where it ran beside the episode
                    learner, acting, rows = fitting.result()
        except stop.Stopped:
            break
        with timers("replay"):
            memory = extend(memory, steps)
            checkpoint.append_rows(folder, counters["plays"], steps)
        before = counters["episodes"]
        counters["plays"] += 1
        counters["episodes"] += train.num_envs
        counters["env_steps"] += (len(steps.reward) - 1) * train.num_envs * spec.action_repeat
        collected = np.split(returns, len(members))
        rows = [row | {"collect/return": own.mean()} for row, own in zip(rows, collected, strict=True)]

        last = counters["episodes"] >= train.episodes
        evaluating = not seeding and (last or passes(before, counters["episodes"], evaluation.every))
        if evaluating:
            begun = time.monotonic()
            try:
                with timers("evaluate"):
                    rows = [row | own for row, own in zip(rows, evaluate(), strict=True)]
            except stop.Stopped:
                break
            took = time.monotonic() - begun
            counters["evaluated"] = int(learner.updates[0])

        now = time.monotonic()
        shared = counted(counters, learner) | timers.flush() | {"time/total": now - row_begun}
        row_begun = now
        for writer, row in zip(metrics, rows, strict=True):
            writer.write(shared | row)
        progress.show(shared | mean_of(rows))
        state, saved = present(), False
        if last or passes(before, counters["episodes"], train.checkpoint_every):
            save()
            saved = True
        if evaluating:
            lifecycle.write_reports(folder, members)

    if not saved:
        save()
    trainer.shutdown()
    learner, acting, counters = state["learner"], state["acting"], state["counters"]
    finished = counters["episodes"] >= train.episodes
    if not finished and not stop.asked() and learner.updates[0] > counters["evaluated"]:
        # After --minutes: a resumed run cuts these lines off again, for the checkpoint counts those before them.
        with contextlib.suppress(stop.Stopped):
            for writer, row in zip(metrics, evaluate(), strict=True):
                writer.write(counted(counters, learner) | row)

    progress.close()
    for writer in metrics:
        writer.close()
    ended = dict(finished=finished, minutes=progress.elapsed_minutes(), planned=dict(episodes=train.episodes))
    lifecycle.write_summaries(folder, members, ended | counted(counters, learner), axis="episodes")
    console.say(f"report: {lifecycle.write_reports(folder, members) or 'could not be written'}")
    if not finished:
        stop.check()


def counted(counters, learner):
    """The axes of every metric."""
    return dict(env_steps=counters["env_steps"], episodes=counters["episodes"], updates=int(learner.updates[0]))


def passes(before, after, every):
    """True when a counter that went from `before` to `after` passed a multiple of `every`."""
    return after // every > before // every


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
