"""Trains an Atari agent inside its own world model (Robine et al. 2023, section 3.3): collect, fit, dream, again.

    python -m experiments.smaller_world_models --config=experiments/smaller_world_models/config.py:Pong,cpu --workdir=runs/a

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""  # noqa: E501

import contextlib
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import config_flags

from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import parts, scores
from experiments.smaller_world_models.config import MAY_DIFFER
from experiments.smaller_world_models.parts import BINS, DOING, PHASES, at
from wmjax import console, replay
from wmjax.agents.random import make_random_actor
from wmjax.console import try_drawing
from wmjax.report import metrics
from wmjax.report.metrics import MetricsWriter
from wmjax.report.page import write_table
from wmjax.report.progress import Progress
from wmjax.report.video import check_ffmpeg, write_png, write_strip, write_video
from wmjax.run import cli, devices, lifecycle, pools, replays, stop
from wmjax.run.collect import make_player, play_returns, play_steps
from wmjax.run.members import member, member_keys
from wmjax.run.stopwatch import Timers
from wmjax.storage import checkpoint
from wmjax.train import check_finite
from wmjax.types import Step, UsageError

CONFIG = config_flags.DEFINE_config_file("config", help_string="experiments/smaller_world_models/config.py:GAME,PRESET")
WORKDIR = cli.path_flag("workdir", "folder of the run")
MINUTES = cli.define_minutes("stop in order after this many minutes, with a last evaluation")
SAVE_MINUTES = 5  # from one checkpoint to the next, about


def main(argv):
    """Runs all iterations, or until --minutes. argv: the command line."""
    cli.parse_flags(argv, __name__, configs)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UsageError("give --config=experiments/smaller_world_models/config.py:<game>,<preset> and --workdir=DIR")
    cli.use_jax()
    chosen = parts.settings(CONFIG.value)
    train = chosen.train
    folder = pathlib.Path(WORKDIR.value)

    # Everything that can be refused is made before the folder is touched.
    spec, example = pools.first_step(chosen.members, 1, chosen.env)
    agent = parts.make_agent(chosen, spec)
    example = parts.newest(example, train.frames)
    capacity = 1 + sum(at(train.interactions, i) for i in range(train.iterations))
    limit = spec.time_limit or capacity
    parts.check_chunk(train, 1 + min(limit, at(train.interactions, 0)))
    gigabytes = len(chosen.members) * replay.nbytes(capacity, example) / 1e9
    console.say(f"replay: {capacity} rows for {len(chosen.members)} environments, {gigabytes:.2f} GB")
    mesh = devices.make_mesh("1")
    replays.check_memory(capacity, 1, example, len(chosen.members), mesh)
    env = pools.join_envs(chosen.members, 1, chosen.env)
    episodes = chosen.evaluation.episodes
    eval_env = pools.join_envs(chosen.members, episodes, chosen.env, purpose="evaluation")
    step, _ = env.reset(), eval_env.reset()  # step: the current one of the real environments, [S]
    memory = replays.make_memory(capacity, 1, example, len(chosen.members), mesh)
    members = lifecycle.open_folders(folder, CONFIG.value, chosen.members, MAY_DIFFER)
    stop.listen()
    try_drawing(check_ffmpeg)
    lifecycle.write_references(members, [scores.references(each.task, train.frames) for each in chosen.members])

    whole = devices.replicated(mesh)
    makers = dict(warm_up=parts.make_warm_up, fit=parts.make_fit, dream=parts.make_dream)
    trainers = {name: make(agent, train, place=whole) for name, make in makers.items()}
    explorer = make_player(agent.actor, 1, explore=True)
    randomly = make_player(make_random_actor(spec.action, train.hold), 1, explore=True)
    player = make_player(agent.actor, episodes, explore=False)
    predict = parts.make_predict(agent, spec, train.frames)
    foretell = parts.make_foretell(agent, spec, train.frames)
    reconstruct = parts.make_reconstruct(agent, spec, train.frames)
    extend = replays.make_extend(memory)
    fold_in = jax.jit(jax.vmap(jax.random.fold_in, (0, None)), out_shardings=whole)
    world_keys, policy_keys, *phase_keys = member_keys(chosen.members, 2 + len(PHASES))

    # A run is the state below.
    world = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(world_keys)
    policy = jax.jit(jax.vmap(agent.policy.init), out_shardings=whole)(policy_keys)
    unfinished = np.zeros(len(members))  # returns so far of the episodes under way
    counters: dict[str, Any] = dict(iterations=0, phase="collect", done=0, collected=0, episodes=0, env_steps=0)
    counters |= dict(updates=0, evaluated=0, minutes=0.0, row_minutes=0.0, metrics_bytes=[0] * len(members))
    # What is known of the iteration under way: its line of metrics for each member, the newest rows that were
    # collected, sums of the metrics of a point that is not whole yet.
    so_far: dict[str, Any] = dict(rows=[{} for _ in members], window={}, sums={})
    state = dict(world=world, policy=policy, unfinished=unfinished, counters=counters)
    template = state | dict.fromkeys(("so_far", "env", "eval_env"), checkpoint.AS_SAVED)
    restored = checkpoint.restore_latest(folder, template)
    if restored:
        world, policy, unfinished, counters, so_far = (restored[1][name] for name in (*state, "so_far"))
        step = env.restore(restored[1]["env"])
        eval_env.restore(restored[1]["eval_env"])
        for steps in checkpoint.load_rows(folder, counters["collected"]):
            memory = extend(memory, steps)
        console.say(f"resumed after iteration {counters['iterations']}, to {counters['phase']}")
    checkpoint.drop_rows_from(folder, counters["collected"])
    writers = [MetricsWriter(*each) for each in zip(members, counters["metrics_bytes"], strict=True)]
    progress = Progress(train.iterations, MINUTES.value, done_minutes=counters["minutes"], unit="iteration")
    timers = Timers()
    if not restored:
        lifecycle.write_reports(folder, members)
    took = None  # seconds of the newest evaluation
    snapshots = dict(env=env.snapshot(), eval_env=eval_env.snapshot())  # between two phases: a stopped one begins again
    saved, saved_at = True, progress.minutes_here()

    def save():
        now = dict(metrics_bytes=[writer.offset for writer in writers], minutes=progress.elapsed_minutes())
        state = dict(world=world, policy=policy, unfinished=unfinished, counters=counters | now, so_far=so_far)
        checkpoint.save(folder, counters["iterations"], state | snapshots, keep=train.keep_checkpoints)

    def check_and_means(sums, count, each, name):
        """Means of a point of a curve, one dict for each member; NonFiniteError where one is not finite."""
        sums = jax.tree.map(lambda x: x[:, None] / np.float32(count), sums)  # [S, 1]
        trained = parts.trained(name, world.params, policy.params)
        for i, place in enumerate(members):
            own = member(sums, i)
            own |= dict(grad_finite=own["grad_finite"] == 1)
            of = place.name if len(members) > 1 else ""
            check_finite(own, member(trained, 0), counters["updates"] + 1, of, each=count * each)
        means = {f"train/{key}": x[:, 0] for key, x in sums.items() if key != "grad_finite"}
        return [{key: float(x[i]) for key, x in means.items()} for i in range(len(members))]

    def evaluate(keys):
        """Plays the evaluation episodes and draws: metrics of each member."""
        params = dict(model=world.params, policy=policy.params)
        returns, film = play_returns(eval_env, player, params, keys, Timers(), parts.FILM)
        name, rows = f"iteration_{counters['iterations'] + 1:03d}", []
        for i, own in enumerate(np.split(returns, len(members))):
            window = by_rows(Step(**so_far["window"]), i, 1)
            seen, params = by_rows(film, i * len(own), len(own)), member(world.params, i)
            draw(members[i] / "videos", name, parts.newest(seen, train.frames).obs[:, 0], window, params,
                 predict=predict, reconstruct=reconstruct, key=keys[i], frames=train.frames)  # fmt: skip
            held_out = jax.device_get(foretell(params, keys[i], member(memory, i), parts.windows(seen)))
            rows.append(metrics.evaluated(own) | {f"eval/{key}": value for key, value in held_out.items()})
        return rows

    def write_lines(rows):
        """Writes each member's line of an evaluation and its table; returns what all have in common."""
        shared = counted(counters) | timers.flush()
        shared |= {"time/total": 60 * (progress.elapsed_minutes() - counters["row_minutes"])}
        for place, of, writer, row in zip(members, chosen.members, writers, rows, strict=True):
            writer.write(shared | row)
            table = scores.report_table(of.task, row["eval/return_mean"], row["eval/return_std"])
            try_drawing(write_table, place, table)
        newest = [row["eval/return_mean"] for row in rows]
        if len(members) > 1:
            try_drawing(write_table, folder, scores.population_table([of.task for of in chosen.members], newest))
        return shared | {"eval/return_mean": float(np.mean(newest))}

    while counters["iterations"] < train.iterations and not stop.asked() and not progress.out_of_time(took):
        iteration, phase = counters["iterations"], counters["phase"]
        keys = fold_in(phase_keys[PHASES.index(phase)], iteration)
        if phase == "collect":
            params = dict(model=world.params, policy=policy.params)
            actor = explorer if iteration else randomly
            count = at(train.interactions, iteration)
            try:
                steps = play_steps(env, actor, params, keys, timers, step=step, count=count)
            except stop.Stopped:
                break
            snapshots["env"] = env.snapshot()
            with timers("replay"):
                new = steps if iteration else jax.tree.map(lambda a, b: np.concatenate([a[None], b]), step, steps)
                new = parts.newest(new, train.frames)
                if iteration == 0:
                    parts.check_chunk(train, parts.longest(new.is_first))
                memory = extend(memory, new)
                checkpoint.append_rows(folder, iteration, new)
            step = jax.tree.map(lambda x: x[-1], steps)
            ended, unfinished = parts.finished_returns(steps, unfinished)
            counters["env_steps"] += int((~steps.is_first).sum()) // len(members) * spec.action_repeat
            counters["episodes"] += sum(map(len, ended)) // len(members)
            counters |= dict(collected=iteration + 1, phase="fit" if iteration else "warm_up")
            windows = [parts.last_window(by_rows(steps, i, 1), parts.PREDICTED) for i in range(len(members))]
            so_far = dict(
                rows=[{"collect/return": float(np.mean(own))} if own else {} for own in ended],
                window=vars(jax.tree.map(lambda *x: np.concatenate(x, axis=1), *windows)),
                sums={},
            )
        elif phase == "evaluate":
            save()  # first: what follows may fail, and repeating it costs little
            begun = time.monotonic()
            try:
                with timers("evaluate"):
                    shown = evaluate(keys)
            except stop.Stopped:
                break
            took = time.monotonic() - begun
            snapshots["eval_env"] = eval_env.snapshot()
            counters |= dict(iterations=iteration + 1, phase="collect", evaluated=counters["updates"])
            progress.show(write_lines([a | b for a, b in zip(so_far["rows"], shown, strict=True)]))
            counters["row_minutes"] = progress.elapsed_minutes()
            so_far = dict(rows=[{} for _ in members], window={}, sums={})
            lifecycle.write_reports(folder, members)
        else:
            curve = parts.curve(phase, train, iteration, kept=int(memory.filled[0]))
            point, first, end = curve.part(phase, counters["done"], len(members))
            if counters["done"] == 0:
                progress.note(f"{DOING[phase]}: {BINS * curve.updates * curve.each} updates")
            with timers(phase):
                numbers = jax.device_put((*map(np.int32, (point, first, end)), *curve.numbers))
                trains = (world, policy) if phase == "dream" else world
                with devices.no_transfers():
                    trains, sums = jax.block_until_ready(trainers[phase](trains, memory, keys, *numbers))
                world, policy = trains if phase == "dream" else (trains, policy)
            sums = jax.device_get(sums)
            so_far["sums"] = jax.tree.map(np.add, so_far["sums"], sums) if first else sums
            counters["done"] += end - first
            if end == curve.updates:
                means = check_and_means(so_far["sums"], curve.updates, curve.each, phase)
                counters["updates"] += curve.updates * curve.each
                for writer, row in zip(writers, means, strict=True):
                    writer.write({name: counters[name] for name in ("env_steps", "updates")} | row)
                so_far["sums"] = {}
                progress.phase(f"iteration {iteration + 1}, {DOING[phase]}", point + 1, BINS)
            if counters["done"] == BINS * curve.updates:
                if phase != "warm_up":
                    so_far["rows"] = [a | b for a, b in zip(so_far["rows"], means, strict=True)]
                counters |= dict(done=0, phase=PHASES[PHASES.index(phase) + 1])
        saved = False
        if progress.minutes_here() - saved_at >= SAVE_MINUTES:
            save()
            saved, saved_at = True, progress.minutes_here()

    if not saved:
        save()
    finished = counters["iterations"] >= train.iterations
    if not finished and not stop.asked() and counters["updates"] > counters["evaluated"]:
        # After --minutes: a resumed run cuts these lines off again, for the checkpoint counts those before them.
        with contextlib.suppress(stop.Stopped):
            write_lines(evaluate(fold_in(phase_keys[-1], counters["iterations"])))

    progress.close()
    for writer in writers:
        writer.close()
    told = dict(finished=finished, minutes=progress.elapsed_minutes(), planned=dict(iterations=train.iterations))
    lifecycle.write_summaries(folder, members, told | counted(counters), axis="iterations")
    console.say(f"report: {lifecycle.write_reports(folder, members) or 'could not be written'}")
    if not finished:
        stop.check()


def counted(counters):
    """The axes of every evaluation's metrics."""
    return {name: counters[name] for name in ("iterations", "episodes", "env_steps", "updates")}


def by_rows(steps, first, count):
    """`count` rows of Step [T, E]."""
    return jax.tree.map(lambda x: x[:, first : first + count], steps)


def draw(videos, name, film, window, params, *, predict, reconstruct, key, frames):
    """Writes an evaluation's video, an open-loop prediction and the codes of eight frames of what was collected.

    What cannot be written is a warning.
    """
    try_drawing(write_video, videos / f"{name}.mp4", film, parts.FRAMES_A_SECOND)
    truth = parts.newest(window, frames).obs[:, 0]
    imagined = np.asarray(predict(params, key, window))
    try_drawing(write_strip, videos / f"open_loop_{name}.png", truth, imagined, parts.CONTEXT)
    some = slice(0, None, max(1, len(truth) // 8))
    codes, drawn = jax.device_get(reconstruct(params, window.obs[some, 0]))
    try_drawing(write_png, videos / f"codes_{name}.png", parts.code_picture(truth[some], codes, drawn))


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
