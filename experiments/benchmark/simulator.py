"""One decision with the true simulator as the model (trade-offs study: H 12, I 10, J 128, K 12, action repeat 4).

Beside each: the same physics steps by `mujoco.rollout` alone, and the same decision on one thread.
"""

import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from wmjax import envs
from wmjax.models import simulator
from wmjax.planners import CEMConfig, make_cem
from wmjax.report.benchmark import Work

CONFIG = CEMConfig(candidates=128, elites=12)
REPEAT = 4
TASKS = dict(
    quick=["cheetah_run"],
    paper=[
        "cartpole_balance", "cartpole_swingup", "reacher_easy", "cheetah_run", "finger_spin", "ball_in_cup_catch",
        "walker_walk",
    ],
)  # fmt: skip


def works(preset: str) -> Iterator[Work]:
    """Every task; threads: of all cores this process may use, and one."""
    threads = len(os.sched_getaffinity(0))
    for task in TASKS[preset]:
        ours = decision(task, threads)
        yield raw(task, threads, ours)
        yield ours
        if threads > 1:
            yield decision(task, 1, reference=ours)


def make(task: str, threads: int) -> Any:
    """The environment of one row."""
    env: Any = envs.make(f"physics:{task}", 1, 0, action_repeat=REPEAT, threads=threads)
    return env, env.reset().obs


def physics_steps(env: Any) -> int:
    """Physics steps of a decision."""
    return CONFIG.candidates * CONFIG.horizon * CONFIG.iterations * REPEAT * env._simulator.substeps


def decision(task: str, threads: int, reference: Work | None = None) -> Work:
    """The Work of planning one decision."""
    env, obs = make(task, threads)
    model = simulator.make_model(env.spec, env.advance)
    plan = jax.jit(make_cem(model, env.spec.action, CONFIG).plan)
    state = model.observe(None, None, None, None, model.encode(None, obs), np.ones(1, bool))[0]
    amounts = {"decisions": 1, "physics steps": physics_steps(env)}
    name = f"{task}, {threads} thread{'s' if threads > 1 else ''}"
    call = lambda: plan(None, jax.random.key(0), state)
    return Work(name, call, amounts, tags=dict(task=task, threads=threads), reference=reference)


def raw(task: str, threads: int, ours: Work) -> Work:
    """The Work of rolling out as many physics steps, with controls that are ready."""
    env, obs = make(task, threads)
    mujoco = env._simulator
    rows, steps = CONFIG.candidates, CONFIG.horizon * REPEAT * mujoco.substeps
    control = np.random.default_rng(0).uniform(-1, 1, (rows, CONFIG.horizon, env.spec.action.size))
    control = control.repeat(steps // CONFIG.horizon, axis=1)
    states = np.repeat(obs, rows, axis=0).view(np.float64)[..., 0]

    def call() -> None:
        for _ in range(CONFIG.iterations):
            mujoco.rollout(states, control)

    amounts = {"physics steps": physics_steps(env)}
    tags = dict(task=task, threads=threads)
    return Work(f"{task}, mujoco.rollout alone", call, amounts, tags=tags, reference=ours)
