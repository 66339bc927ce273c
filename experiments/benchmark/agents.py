"""Agents that query a model (Buesing et al. 2018): updates alone, and acting and learning as one program.

The game is MiniPacman in 64 environments with 5 decisions an update; the model a dSSM-DET with first weights, whose
speed is that of any.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from wmjax import envs
from wmjax.agents import i2a
from wmjax.models import state_space
from wmjax.report.benchmark import Work, compiled
from wmjax.run import unroll
from wmjax.types import Array, JaxEnv, Learner, LearnerState, Params

ROWS, DECISIONS, UPDATES = 64, 5, 20
HORIZONS = dict(quick=[3], paper=[1, 3])
SIZES: dict[str, Any] = dict(kernels=(3, 3), strides=(1, 2), widths=(16, 16), units=256)  # as in experiments/i2a, cpu
SIZES |= dict(encoder_kernel=3, encoder_strided=(16,), encoder_widths=(8,), encoder_units=64, lstm_units=64)
SIZES |= dict(policy_widths=(8, 8), policy_units=64)
MODEL = state_space.StateSpaceConfig(
    kind="dssm_det", channels=16, encoder_width=16, decoder_width=16, blocks=(2, 1), reward_digits=4
)
AGENTS = dict(copy="uniform", uniform="uniform", distilled="distilled", ltq="learned")


class Playing(NamedTuple):
    """An agent and where it is."""

    env: JaxEnv
    player: unroll.Player
    learner: Learner
    model: Params
    state: LearnerState
    playing: unroll.Playing


def works(preset: str) -> Iterator[Work]:
    """The baseline without a model in both mazes; then every agent in the larger one, by depth of its rollouts."""
    frames = {"frames": UPDATES * ROWS * DECISIONS}
    for maze in ("15x19", "9x11"):
        one = make("none", maze, None, {}, {})
        yield compiled(f"model_free {maze}, acts and learns", *loop(one), frames, maze=maze, agent="model_free")
    for horizon in HORIZONS[preset]:
        for name, policy in AGENTS.items():
            one = make(policy, "15x19", *model_of(name), dict(horizon=horizon))
            for does, measured, each in (("learns", learning, UPDATES), ("acts and learns", loop, 1)):
                rows = {"frames": frames["frames"] / each}
                title = f"{name}, depth {horizon}, {does}"
                yield compiled(title, *measured(one), rows, agent=name, horizon=horizon)


def model_of(name: str) -> tuple[i2a.Query, Params]:
    """A model with first weights, as an agent asks it."""
    spec: Any = envs.make_jax("minipacman:regular").spec
    model, learner = state_space.make(MODEL, spec)
    if name == "copy":
        model = model._replace(imagine=lambda params, key, state, action: state)
    begin = state_space.make_begin(MODEL, spec)
    return i2a.Query(model, begin.images, begin.begin), jax.jit(learner.init)(jax.random.key(0)).params


def make(policy: str, maze: str, query: i2a.Query | None, model: Params, settings: dict) -> Playing:
    """A Playing at the first episodes' first images."""
    env: Any = envs.make_jax("minipacman:regular", maze=maze)
    config = i2a.I2AConfig(rollout_policy=policy, **SIZES, **settings)
    agent = i2a.make_agent(config, env.spec, query)
    learner = i2a.make(config, agent)
    player = unroll.Player(agent.initial, agent.look, functools.partial(i2a.choose, agent))
    state = jax.jit(learner.init)(jax.random.key(1))
    begin = jax.jit(lambda params: unroll.begin(env, player, params, jax.random.key(2), ROWS))
    return Playing(env, player, learner, model, state, begin(dict(model=model, agent=state.params)))


def acting(one: Playing) -> Callable:
    """`act` of `i2a.act_and_learn`: DECISIONS a row."""
    return functools.partial(unroll.unroll, one.env, one.player, count=DECISIONS)


def loop(one: Playing) -> tuple[Callable, list]:
    """(function, its arguments): UPDATES times acting and learning."""

    def run(model: Params, state: LearnerState, playing: unroll.Playing, key: Array) -> Any:
        def update(carry: Any, key: Array) -> Any:
            state, playing = carry
            state, playing, metrics, _ = i2a.act_and_learn(acting(one), one.learner.update, model, state, playing, key)
            return (state, playing), metrics["loss"]

        return jax.lax.scan(update, (state, playing), jax.random.split(key, UPDATES))

    return run, [one.model, one.state, one.playing, jax.random.key(3)]


def learning(one: Playing) -> tuple[Callable, list]:
    """(function, its arguments): an update alone, from what acting saw."""
    params = dict(model=one.model, agent=one.state.params)
    _, steps, seen = jax.jit(acting(one))(params, jax.random.key(3), one.playing)
    return one.learner.update, [one.state, jax.random.key(4), i2a.Unroll(one.model, steps, seen)]
