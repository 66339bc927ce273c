"""Environments from pixels: decisions a second through our actors, beside envpool alone and other libraries."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.benchmark import rivals
from wmjax import envs
from wmjax.envs import gl
from wmjax.report.benchmark import Work

SIZES = dict(quick=[4], paper=[1, 8, 32])  # environments at once
REPEAT, SIZE = 4, 64  # PlaNet's action repeat for cheetah
GAME, GAME_SIZES, GAME_SIZE = "Pong", dict(quick=[8], paper=[8, 32]), 96  # Smaller World Models: 96x96, grey


def works(preset: str) -> Iterator[Work]:
    """dmc:cheetah_run at 64x64, then atari:Pong."""
    for rows in SIZES[preset]:
        yield from cheetah(rows)
    for rows in GAME_SIZES[preset]:
        yield from game(rows)


def cheetah(rows: int) -> Iterator[Work]:
    """Physics and rendering apart, and dm_control."""
    env = envs.make("dmc:cheetah_run", rows, seed=0, size=SIZE)
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (rows, env.spec.action.size)).astype(np.float32)
    amounts, tags = {"decisions": rows}, dict(envs=rows)
    name = f"our actors, {rows} envs"
    ours = Work(name, functools.partial(env.step, actions), amounts, tags=tags)
    yield ours
    pool, ids = raw_pool(rows), np.arange(rows, dtype=np.int32)
    pool.reset()
    render = functools.partial(pool.render, env_ids=ids)
    yield Work(f"rendering alone, {rows} envs", render, amounts, tags=tags, reference=ours)
    physics = functools.partial(decide, pool, actions.astype(np.float64), ids)
    yield Work(f"physics alone, {rows} envs", physics, amounts, tags=tags)
    yield rivals.dm_control_decision(ours, rows, REPEAT, SIZE)
    env.close()


def game(rows: int) -> Iterator[Work]:
    """Four emulated frames a decision; the same actions at every one."""
    env = envs.make(f"atari:{GAME}", rows, seed=0, size=GAME_SIZE)
    env.reset()
    actions = np.random.default_rng(0).integers(0, env.spec.action.size, rows).astype(np.int32)
    amounts, tags = {"decisions": rows, "frames": rows * env.spec.action_repeat}, dict(envs=rows, game=GAME)
    ours = Work(f"our actors, {GAME}, {rows} envs", functools.partial(env.step, actions), amounts, tags=tags)
    yield ours
    pool = gl.import_envpool().make_gym(
        f"{GAME}-v5", num_envs=rows, seed=0, img_height=GAME_SIZE, img_width=GAME_SIZE, stack_num=1, gray_scale=True
    )
    pool.reset()
    yield Work(f"envpool alone, {rows} envs", functools.partial(pool.step, actions), amounts, tags=tags, reference=ours)
    if rivals.installed("ale_py"):
        yield rivals.ale_py_decision(ours, rows, GAME, GAME_SIZE, actions)
        if rivals.installed("gymnasium"):
            yield rivals.gymnasium_decision(ours, rows, GAME, GAME_SIZE, actions)
    env.close()


def decide(pool: Any, actions: np.ndarray, ids: np.ndarray) -> None:
    """The physics of one decision."""
    for _ in range(REPEAT):
        pool.step(actions, ids)


def raw_pool(rows: int) -> Any:
    """envpool's own cheetah, as it comes."""
    return gl.import_envpool().make_dm(
        "CheetahRun-v1", num_envs=rows, seed=0, render_mode="rgb_array", render_width=SIZE, render_height=SIZE
    )
