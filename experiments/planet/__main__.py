"""Trains PlaNet (Hafner et al. 2019, Algorithm 1): collect an episode by planning, fit the model, again.

    python -m experiments.planet --config=experiments/planet/config.py:cheetah_run,cpu --workdir=runs/a

The same command in the same folder resumes. Settings: --config.key=value; see config.py.
"""

import functools
import json
import pathlib
import sys
import time
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from experiments.planet import parts
from wmjax import envs, replay
from wmjax.agents.mpc import make_random_actor
from wmjax.run import checkpoint, workdir
from wmjax.run import main as mains
from wmjax.run.collect import make_act, play_episodes
from wmjax.run.finite import check_finite
from wmjax.run.metrics import MetricsWriter, read_metrics
from wmjax.run.progress import Progress
from wmjax.run.report import write_report
from wmjax.run.timers import Timers
from wmjax.types import UsageError

CONFIG = config_flags.DEFINE_config_file("config", help_string="experiments/planet/config.py:<task>,<preset>")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
MINUTES = flags.DEFINE_float("minutes", None, "stop in order after this many minutes")


def main(argv):
    """Runs Algorithm 1 to its end, or to --minutes. argv: the command line."""
    mains.parse_flags(argv)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UsageError("give --config=experiments/planet/config.py:<task>,<preset> and --workdir=DIR")
    mains.use_compilation_cache()
    chosen = parts.settings(CONFIG.value)
    train, evaluation = chosen.train, chosen.evaluation
    folder = pathlib.Path(WORKDIR.value)

    # Everything that can be refused is made before the folder is touched.
    env = envs.make(chosen.task, train.num_envs, chosen.seed, **chosen.env)
    eval_env = parts.make_evaluation_env(chosen)
    agent = parts.make_agent(chosen, env.spec)
    random_actor = make_random_actor(env.spec.action)
    example, _ = env.reset(), eval_env.reset()
    capacity = train.replay_rows // train.num_envs
    parts.check_lengths(train, env.spec, capacity)
    print(f"replay: {capacity} rows for {train.num_envs} environments, {replay.nbytes(capacity, example) / 1e9:.2f} GB")
    memory = replay.init(capacity, train.num_envs, example)
    workdir.open_workdir(folder, CONFIG.value.to_dict())

    train_phase = parts.make_train_phase(agent.learner, train, train.updates_per_episode * train.num_envs)

    def fit(learner, acting, memory, key):
        """Waits for a phase: (learner, acting, metrics row); NonFiniteError where something was not finite."""
        first = int(learner.updates) + 1
        with jax.transfer_guard("disallow"):
            (learner, acting), losses = jax.block_until_ready(train_phase(learner, acting, memory, key))
        losses = jax.device_get(losses)
        check_finite(losses, learner.params, first)
        return learner, acting, {f"train/{name}": x.mean() for name, x in losses.items() if name != "grad_finite"}

    extend = jax.jit(replay.extend, donate_argnums=0)
    act = make_act(agent.actor, explore=True)
    act_greedily = make_act(agent.actor, explore=False)
    act_randomly = make_act(random_actor, explore=True)
    root_key = jax.random.key(chosen.seed)
    init_key, collect_key, train_key, eval_key = jax.random.split(root_key, 4)

    # A run is the state below; plays counts the calls of play_episodes and so the replay's files.
    learner = jax.jit(agent.learner.init)(init_key)
    acting = jax.tree.map(jnp.copy, learner.params)
    counters: dict[str, Any] = dict(plays=0, episodes=0, env_steps=0, metrics_bytes=0, minutes=0.0)
    predict = parts.make_predict(agent, env.spec)
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
        print(f"resumed after episode {counters['episodes']}")
    checkpoint.drop_rows_from(folder, counters["plays"])
    metrics = MetricsWriter(folder, counters["metrics_bytes"])
    start_minutes = counters["minutes"]
    progress = Progress(train.episodes, MINUTES.value, done_episodes=counters["episodes"], done_minutes=start_minutes)
    timers = Timers()
    if not restored:
        write_report(folder)

    trainer = futures.ThreadPoolExecutor(1)
    row_begun = time.monotonic()

    def out_of_time():
        return MINUTES.value is not None and progress.elapsed_minutes() - start_minutes >= MINUTES.value

    while counters["episodes"] < train.episodes and not out_of_time():
        seeding = counters["episodes"] < train.seed_episodes
        row = {}

        player, fitting = acting, None
        if not seeding:
            key = jax.random.fold_in(train_key, counters["plays"])
            fitting = trainer.submit(fit, learner, acting, memory, key)
            if not train.overlap:
                with timers("update"):
                    player = fitting.result()[1]

        key = jax.random.fold_in(collect_key, counters["plays"])
        if seeding or train.collect == "random":
            steps, returns = play_episodes(env, random_actor, act_randomly, player, key, timers)
        else:
            steps, returns = play_episodes(env, agent.actor, act, player, key, timers)
        if fitting:
            with timers("update"):  # what is left of it, where it ran beside the episode
                learner, acting, losses = fitting.result()
            row |= losses
        parts.check_rows(train, len(steps.reward))
        with timers("replay"):
            memory = extend(memory, steps)
            checkpoint.append_rows(folder, counters["plays"], steps)
        before = counters["episodes"]
        counters["plays"] += 1
        counters["episodes"] += train.num_envs
        counters["env_steps"] += (len(steps.reward) - 1) * train.num_envs * env.spec.action_repeat
        row["collect/return"] = returns.mean()

        last = counters["episodes"] >= train.episodes
        evaluating = not seeding and (last or passes(before, counters["episodes"], evaluation.every))
        if evaluating:
            with timers("evaluate"):
                key = jax.random.fold_in(eval_key, counters["plays"])
                name = f"episode_{counters['episodes']:06d}"
                play = functools.partial(play_episodes, eval_env, agent.actor, act_greedily, acting)
                row |= parts.evaluate(folder, name, play, predict, acting, key)

        now = time.monotonic()
        row = counted(counters, learner) | row | timers.flush() | {"time/total": now - row_begun}
        row_begun = now
        metrics.write(row)
        progress.show(row)
        if last or out_of_time() or passes(before, counters["episodes"], train.checkpoint_every):
            counters |= dict(metrics_bytes=metrics.offset, minutes=progress.elapsed_minutes())
            state = dict(
                learner=learner, acting=acting, counters=counters, env=env.snapshot(), eval_env=eval_env.snapshot()
            )
            checkpoint.save(folder, counters["episodes"], state, keep=train.keep_checkpoints)
        if evaluating:
            write_report(folder)

    progress.close()
    metrics.close()
    finished = counters["episodes"] >= train.episodes
    evaluations = [row for row in read_metrics(folder) if "eval/return_mean" in row]
    summary = dict(finished=finished, minutes=progress.elapsed_minutes(), **counted(counters, learner))
    shown = ("episodes", "eval/return_mean", "eval/return_std")
    summary["evaluations"] = [{name: row[name] for name in shown} for row in evaluations]
    workdir.atomic_write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(f"report: {write_report(folder)}")


def counted(counters, learner):
    """The axes of every metric."""
    return dict(env_steps=counters["env_steps"], episodes=counters["episodes"], updates=int(learner.updates))


def passes(before, after, every):
    """True when a counter that went from `before` to `after` passed a multiple of `every`."""
    return after // every > before // every


if __name__ == "__main__":
    sys.exit(mains.run(main, sys.argv))
