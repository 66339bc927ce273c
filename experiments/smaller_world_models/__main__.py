"""Trains an Atari agent inside its own world model (Robine et al. 2023, section 3.3): collect, fit, dream, again.

    python -m experiments.smaller_world_models --config=experiments/smaller_world_models/config.py:Pong,cpu --workdir=runs/a

One run in several processes: --distributed=HOST:PORT/N/I in each of them, and --config.devices=all (docs/runs.md,
"Several processes").

The same command in the same folder resumes, also after SIGTERM, SIGUSR1 or Ctrl-C (exit code 75). Settings:
--config.key=value; see config.py.
"""  # noqa: E501

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import config as configs
from experiments.smaller_world_models import phases, predictions, scores
from experiments.smaller_world_models.phases import BINS, DOING, PHASES, at
from experiments.training import read_command
from wmjax import console, replay
from wmjax.agents.random import make_random_actor
from wmjax.report.metrics import evaluated
from wmjax.run import cli, devices, lifecycle, pools, processes, replays, stop
from wmjax.run.collect import make_player, play_returns, play_steps
from wmjax.run.members import member_keys
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import checkpoint
from wmjax.types import Step

SAVE_MINUTES = 5  # from one checkpoint to the next, about


def main(argv: list[str]) -> None:
    """Runs all iterations, or until --minutes. argv: the command line."""
    config, folder, minutes = read_command(argv, __name__, configs)
    settings = agents.read_settings(config)
    members, train, episodes = settings.members, settings.train, settings.evaluation.episodes

    # Everything that can be refused is made before the folder is touched.
    mesh, spec, example, agent, capacity = phases.prepare(settings)
    gigabytes = len(members) * replay.nbytes(capacity, example) / 1e9
    console.say(f"replay: {capacity} rows for {len(members)} environments, {gigabytes:.2f} GB")
    replays.check_memory(capacity, 1, example, len(members), mesh)
    env = pools.single_envs(members, settings.env)
    eval_env = pools.join_envs(members, episodes, settings.env, purpose="evaluation")
    step, _ = env.reset(), eval_env.reset()  # step: the current one of the real environments, [S]
    memory = replays.make_memory(capacity, 1, example, len(members), mesh)
    run = lifecycle.open_run(
        folder,
        config.to_dict(),
        members,
        may_differ=configs.MAY_DIFFER,
        unit="iteration",
        planned=train.iterations,
        minutes=minutes,
        keep=train.keep_checkpoints,
        pictures=[predictions.OPEN_LOOP, predictions.CODES],
    )
    lifecycle.write_references(run.member_folders, [scores.references(each.task, train.frames) for each in members])

    whole, over_rows = devices.replicated(mesh), devices.split(mesh, 1)
    trainers = {name: make(agent, train, mesh) for name, make in phases.MAKERS.items()}
    explorer = make_player(agent.actor, 1, explore=True, sharding=whole)
    randomly = make_player(make_random_actor(spec.action, train.hold), 1, explore=True, sharding=whole)
    player = make_player(agent.actor, episodes, explore=False, sharding=over_rows)
    show = predictions.make_show(agent, spec, train.frames)
    extend = replays.make_extend(memory)
    fold_in = jax.jit(jax.vmap(jax.random.fold_in, (0, None)), out_shardings=whole)
    world_keys, policy_keys, *phase_keys = member_keys(members, 2 + len(PHASES))

    # A run is the state below.
    world = jax.jit(jax.vmap(agent.learner.init), out_shardings=whole)(world_keys)
    policy = jax.jit(jax.vmap(agent.policy.init), out_shardings=whole)(policy_keys)
    unfinished = np.zeros(len(members))  # returns so far of the episodes under way
    counters: dict[str, Any] = dict(
        iterations=0, phase="collect", done=0, collected=0, episodes=0, env_steps=0, updates=0, evaluated=0
    )
    # Of the iteration under way: each member's line of metrics, the newest rows that were collected, and sums of the
    # metrics of a point that is not whole yet.
    partial: dict[str, Any] = dict(rows=[{} for _ in members], window={}, sums={})
    # Between two phases: a stopped one begins again.
    snapshots = dict(env=env.snapshot(), eval_env=pools.snapshot(eval_env))
    template = dict(world=world, policy=policy, unfinished=unfinished, counters=counters)
    saved = run.restore(template | dict.fromkeys(("partial", "env", "eval_env"), checkpoint.AS_SAVED))
    if saved:
        world, policy, unfinished, counters, partial = (saved[name] for name in (*template, "partial"))
        snapshots = dict(env=saved["env"], eval_env=saved["eval_env"])
        step = env.restore(saved["env"])
        pools.restore(eval_env, saved["eval_env"], episodes)
        for steps in checkpoint.load_rows(folder, counters["collected"]):
            memory = extend(memory, steps)
    run.drop_rows_from(counters["collected"])

    def counted(names: Sequence[str] = ("iterations", "episodes", "env_steps", "updates")) -> dict[str, Any]:
        """The axes of metrics."""
        return {name: counters[name] for name in names}

    def hold() -> None:
        state = dict(world=world, policy=policy, unfinished=unfinished, counters=dict(counters), partial=dict(partial))
        run.hold(counters["iterations"], state | snapshots)

    def evaluate() -> list[dict[str, Any]]:
        """Plays the evaluation episodes and draws: metrics of each member."""
        keys = fold_in(phase_keys[-1], counters["iterations"])
        params = dict(model=world.params, policy=policy.params)
        returns, film = play_returns(eval_env, player, params, keys, Stopwatch(), predictions.FILM)
        name, window = f"iteration_{counters['iterations'] + 1:03d}", Step(**partial["window"])
        rows = predictions.show_members(show, run.member_folders, name, film, window, world.params, keys, memory)
        return [evaluated(own) | row for own, row in zip(np.split(returns, len(members)), rows, strict=True)]

    hold()
    while run.goes_on(counters["iterations"]):
        iteration, phase = counters["iterations"], counters["phase"]
        keys = fold_in(phase_keys[PHASES.index(phase)], iteration)
        if phase == "collect":
            params = dict(model=world.params, policy=policy.params)
            actor, count = explorer if iteration else randomly, at(train.interactions, iteration)
            try:
                carry = actor.begin(params)  # the random actor plays once, and the policy remembers nothing
                steps = play_steps(env, actor, params, keys, run.stopwatch, step=step, carry=carry, count=count).steps
            except stop.Stopped:
                break
            snapshots = snapshots | dict(env=env.snapshot())
            with run.stopwatch("replay"):
                new = steps if iteration else jax.tree.map(lambda a, b: np.concatenate([a[None], b]), step, steps)
                new = phases.newest(new, train.frames)
                if iteration == 0:
                    agents.check_chunk(train, agents.longest(new.is_first))
                memory = extend(memory, new)
                run.append_rows(iteration, new)
            step = jax.tree.map(lambda x: x[-1], steps)
            ended, unfinished = phases.continued_returns(steps, unfinished)
            counters["env_steps"] += int((~steps.is_first).sum()) // len(members) * spec.action_repeat
            counters["episodes"] += sum(map(len, ended)) // len(members)
            counters |= dict(collected=iteration + 1, phase="fit" if iteration else "warm_up")
            rows = [{"collect/return": float(np.mean(own))} if own else {} for own in ended]
            partial = dict(rows=rows, window=vars(predictions.last_windows(steps)), sums={})
        elif phase == "evaluate":
            run.save()  # first: what follows may fail, and repeating it costs little
            try:
                with run.evaluating():
                    rows = [a | b for a, b in zip(partial["rows"], evaluate(), strict=True)]
            except stop.Stopped:
                break
            snapshots = snapshots | dict(eval_env=pools.snapshot(eval_env))
            counters |= dict(iterations=iteration + 1, phase="collect", evaluated=counters["updates"])
            run.write(counted(), rows)
            scores.write_tables(folder, run.member_folders, members, rows)
            partial = dict(rows=[{} for _ in members], window={}, sums={})
            if iteration + 1 < train.iterations:  # the last one is written by `finish`
                run.write_reports()
        else:
            curve = phases.curve(phase, train, iteration, kept=int(memory.filled[0]))
            point, first, end = curve.part(phase, counters["done"], len(members))
            if counters["done"] == 0:
                run.progress.note(f"{DOING[phase]}: {BINS * curve.updates * curve.each} updates")
            with run.stopwatch(phase):
                numbers = processes.to_devices((*map(np.int32, (point, first, end)), *curve.numbers), whole)
                trains = (world, policy) if phase == "dream" else world
                with devices.no_transfers():
                    trains, sums = jax.block_until_ready(trainers[phase](trains, memory, keys, *numbers))
                world, policy = trains if phase == "dream" else (trains, policy)
            sums = jax.device_get(sums)
            partial["sums"] = jax.tree.map(np.add, partial["sums"], sums) if first else sums
            counters["done"] += end - first
            if end == curve.updates:
                means = phases.check_and_means(partial["sums"], curve, counters["updates"] + 1, run.member_folders)
                counters["updates"] += curve.updates * curve.each
                run.write_lines([counted(("env_steps", "updates")) | row for row in means])
                partial["sums"] = {}
                run.progress.phase(f"iteration {iteration + 1}, {DOING[phase]}", point + 1, BINS)
            if counters["done"] == BINS * curve.updates:
                if phase != "warm_up":
                    partial["rows"] = [a | b for a, b in zip(partial["rows"], means, strict=True)]
                counters |= dict(done=0, phase=PHASES[PHASES.index(phase) + 1])
        hold()
        if run.minutes_unsaved() >= SAVE_MINUTES:
            run.save()

    run.save()
    if run.is_cut_short(counters["iterations"]) and counters["updates"] > counters["evaluated"]:
        with contextlib.suppress(stop.Stopped):
            rows = evaluate()
            run.write_lines([counted() | row for row in rows])
            scores.write_tables(folder, run.member_folders, members, rows)
    run.finish(counters["iterations"], counted())


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
