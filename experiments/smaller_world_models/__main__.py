"""Trains an Atari agent inside its own world model (Robine et al. 2023, section 3.3): collect, fit, dream, again.

    python -m experiments.smaller_world_models --config=experiments/smaller_world_models/config.py:Pong,cpu --workdir=runs/a

The same command in the same folder resumes after the last whole iteration. Settings: --config.key=value; see config.py.
"""  # noqa: E501

import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import parts, scores
from experiments.smaller_world_models.parts import BINS, at, dispatches
from wmjax import replay
from wmjax.agents.mpc import make_random_actor
from wmjax.run import checkpoint, devices, population, talk
from wmjax.run import main as mains
from wmjax.run.collect import make_player, play_returns, play_steps
from wmjax.run.finite import check_finite
from wmjax.run.members import member
from wmjax.run.metrics import MetricsWriter
from wmjax.run.progress import Progress
from wmjax.run.report import write_table
from wmjax.run.talk import try_drawing
from wmjax.run.timers import Timers
from wmjax.run.video import check_ffmpeg, write_png, write_strip, write_video
from wmjax.types import UsageError

CONFIG = config_flags.DEFINE_config_file("config", help_string="experiments/smaller_world_models/config.py:GAME,PRESET")
WORKDIR = mains.path_flag("workdir", "folder of the run")
MINUTES = flags.DEFINE_float("minutes", None, "stop in order after the iteration in which so many minutes are over")


def main(argv):
    """Runs all iterations, or until --minutes. argv: the command line."""
    mains.parse_flags(argv, __name__, configs)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UsageError("give --config=experiments/smaller_world_models/config.py:<game>,<preset> and --workdir=DIR")
    mains.use_jax()
    chosen = parts.settings(CONFIG.value)
    train = chosen.train
    folder = pathlib.Path(WORKDIR.value)

    # Everything that can be refused is made before the folder is touched.
    spec, example = population.first_step(chosen.members, 1, chosen.env)
    agent = parts.make_agent(chosen, spec)
    example = parts.newest(example, train.frames)
    capacity = 1 + sum(at(train.interactions, i) for i in range(train.iterations))
    limit = spec.time_limit or capacity
    parts.check_chunk(train, 1 + min(limit, at(train.interactions, 0)))
    gigabytes = len(chosen.members) * replay.nbytes(capacity, example) / 1e9
    talk.say(f"replay: {capacity} rows for {len(chosen.members)} environments, {gigabytes:.2f} GB")
    mesh = devices.make_mesh("1")
    population.check_memory(capacity, 1, example, len(chosen.members), mesh)
    env = population.join_envs(chosen.members, 1, chosen.env)
    episodes = chosen.evaluation.episodes
    eval_env = population.join_envs(chosen.members, episodes, chosen.env, purpose="evaluation")
    step, _ = env.reset(), eval_env.reset()  # step: the current one of the real environments, [S]
    memory = population.make_memory(capacity, 1, example, len(chosen.members), mesh)
    members = population.open_folders(folder, CONFIG.value, chosen.members)
    try_drawing(check_ffmpeg)
    population.write_references(members, [scores.references(each.task, train.frames) for each in chosen.members])

    whole = devices.replicated(mesh)
    makers = (parts.make_warm_up, parts.make_fit, parts.make_dream)
    warm_up, fit, dream = (make(agent, train, place=whole) for make in makers)
    explorer = make_player(agent.actor, 1, explore=True)
    randomly = make_player(make_random_actor(spec.action, train.hold), 1, explore=True)
    player = make_player(agent.actor, episodes, explore=False)
    predict = parts.make_predict(agent, spec, train.frames)
    foretell = parts.make_foretell(agent, spec, train.frames)
    reconstruct = parts.make_reconstruct(agent, spec, train.frames)
    extend = population.make_extend(memory)
    fold_in = jax.jit(jax.vmap(jax.random.fold_in, (0, None)), out_shardings=whole)
    world_keys, policy_keys, *phase_keys = population.member_keys(chosen.members, 7)

    # A run is the state below.
    world = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(world_keys)
    policy = jax.jit(jax.vmap(agent.policy.init), out_shardings=whole)(policy_keys)
    unfinished = np.zeros(len(members))  # returns so far of the episodes under way
    counters: dict[str, Any] = dict(iterations=0, episodes=0, env_steps=0, updates=0, minutes=0.0)
    counters |= dict(metrics_bytes=[0] * len(members))
    state = dict(world=world, policy=policy, unfinished=unfinished, counters=counters)
    template = state | dict(env=checkpoint.AS_SAVED, eval_env=checkpoint.AS_SAVED)
    restored = checkpoint.restore_latest(folder, template)
    if restored:
        world, policy, unfinished, counters = (restored[1][name] for name in state)
        step = env.restore(restored[1]["env"])
        eval_env.restore(restored[1]["eval_env"])
        for steps in checkpoint.load_rows(folder, counters["iterations"]):
            memory = extend(memory, steps)
        talk.say(f"resumed after iteration {counters['iterations']}")
    checkpoint.drop_rows_from(folder, counters["iterations"])
    writers = [MetricsWriter(*each) for each in zip(members, counters["metrics_bytes"], strict=True)]
    start_minutes = counters["minutes"]
    progress = Progress(
        train.iterations,
        MINUTES.value,
        done_episodes=counters["iterations"],
        done_minutes=start_minutes,
        unit="iteration",
    )
    timers = Timers()
    if not restored:
        population.write_reports(folder, members)
    begun = time.monotonic()

    def out_of_time():
        return MINUTES.value is not None and progress.elapsed_minutes() - start_minutes >= MINUTES.value

    def dispatched(phase, state, keys, *numbers):
        """One phase of training, during which nothing is copied."""
        numbers = jax.device_put(numbers)
        with devices.no_transfers():
            return jax.block_until_ready(phase(state, memory, keys, *numbers))

    def measured(trained, metrics, count):
        """Writes a phase's curve, BINS rows a member; returns each member's last row. trained: what got gradients."""
        metrics = jax.device_get(metrics)
        last = []
        for i, writer in enumerate(writers):
            own = member(metrics, i)
            finite = own.pop("grad_finite") == 1
            of = members[i].name if len(members) > 1 else ""
            check_finite(own | dict(grad_finite=finite), member(trained, 0), counters["updates"] + 1, of, each=count)
            rows = [{f"train/{key}": value[b] for key, value in own.items()} for b in range(BINS)]
            for b, row in enumerate(rows):
                writer.write(dict(env_steps=counters["env_steps"], updates=counters["updates"] + (b + 1) * count) | row)
            last.append(rows[-1])
        counters["updates"] += BINS * int(count)
        return last

    while counters["iterations"] < train.iterations and not out_of_time():
        iteration = counters["iterations"]
        collect_keys, warm_keys, fit_keys, dream_keys, eval_keys = (fold_in(keys, iteration) for keys in phase_keys)

        params = dict(model=world.params, policy=policy.params)
        actor = explorer if iteration else randomly
        count = at(train.interactions, iteration)
        steps = play_steps(env, actor, params, collect_keys, timers, step=step, count=count)
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

        kept = int(memory.filled[0])  # rows of the replay
        if iteration == 0:
            with timers("warm_up"):
                count = dispatches(train.warmup_epochs * kept / train.autoencoder_batch)
                progress.note(f"warming up the autoencoder: {BINS * count} updates")
                world, metrics = dispatched(warm_up, world, warm_keys, count, np.float32(train.warmup_rate))
                measured({name: world.params[name] for name in parts.TRAINED[0]}, metrics, count)
        with timers("fit"):
            interval = np.int32(at(train.intervals, iteration))
            updates = at(train.epochs, iteration) * kept / (train.dynamics_batch * train.dynamics_chunk)
            count = dispatches(updates / interval)
            progress.note(f"fitting the model: {BINS * count * interval} updates")
            world, metrics = dispatched(fit, world, fit_keys, count, interval)
            trained = [{name: world.params[name] for name in names} for names in parts.TRAINED]
            fitted = measured(trained, metrics, count * interval)
        with timers("dream"):
            count = dispatches(at(train.rounds, iteration))
            progress.note(f"training the policy in dreams: {BINS * count} rounds")
            (world, policy), metrics = dispatched(dream, (world, policy), dream_keys, count)
            dreamt = measured(policy.params, metrics, count)

        with timers("evaluate"):
            params = dict(model=world.params, policy=policy.params)
            returns, film = play_returns(eval_env, player, params, eval_keys, Timers(), parts.FILM)
        counters["iterations"] += 1
        name = f"iteration_{counters['iterations']:03d}"
        shown = []
        for i, own in enumerate(np.split(returns, len(members))):
            window = parts.last_window(by_rows(steps, i, 1), parts.PREDICTED)
            seen, params = by_rows(film, i * len(own), len(own)), member(world.params, i)
            draw(members[i] / "videos", name, parts.newest(seen, train.frames).obs[:, 0], window, params,
                 predict=predict, reconstruct=reconstruct, key=eval_keys[i], frames=train.frames)  # fmt: skip
            held_out = jax.device_get(foretell(params, eval_keys[i], member(memory, i), parts.windows(seen)))
            shown.append(population.evaluated(own) | {f"eval/{key}": value for key, value in held_out.items()})
        shown = [row | ({"collect/return": np.mean(own)} if own else {}) for row, own in zip(shown, ended, strict=True)]

        now = time.monotonic()
        shared = {key: counters[key] for key in ("iterations", "episodes", "env_steps", "updates")}
        shared |= timers.flush() | {"time/total": now - begun}
        begun = now
        rows = [a | b | c for a, b, c in zip(fitted, dreamt, shown, strict=True)]
        for place, of, writer, row in zip(members, chosen.members, writers, rows, strict=True):
            writer.write(shared | row)
            table = scores.report_table(of.task, row["eval/return_mean"], row["eval/return_std"])
            try_drawing(write_table, place, table)
        newest = [row["eval/return_mean"] for row in rows]
        if len(members) > 1:
            try_drawing(write_table, folder, scores.population_table([of.task for of in chosen.members], newest))
        progress.show(shared | {"eval/return_mean": float(np.mean(newest))})
        counters |= dict(metrics_bytes=[writer.offset for writer in writers], minutes=progress.elapsed_minutes())
        state = dict(world=world, policy=policy, unfinished=unfinished, counters=counters)
        state |= dict(env=env.snapshot(), eval_env=eval_env.snapshot())
        checkpoint.save(folder, counters["iterations"], state, keep=train.keep_checkpoints)
        population.write_reports(folder, members)

    progress.close()
    for writer in writers:
        writer.close()
    ended = dict(finished=counters["iterations"] >= train.iterations, minutes=progress.elapsed_minutes())
    ended |= {key: counters[key] for key in ("iterations", "episodes", "env_steps", "updates")}
    population.write_summaries(folder, members, ended, axis="iterations")
    talk.say(f"report: {population.write_reports(folder, members) or 'could not be written'}")


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
    sys.exit(mains.run(main, sys.argv))
