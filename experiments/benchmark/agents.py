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

UPDATES = 20
HORIZONS = dict(quick=[3], paper=[1, 3])
SIZES: dict[str, Any] = dict(kernels=(3, 3), strides=(1, 2), widths=(16, 16), units=256)  # as in experiments/i2a, cpu
SIZES |= dict(encoder_kernel=3, encoder_strided=(16,), encoder_widths=(8,), encoder_units=64, lstm_units=64)
SIZES |= dict(policy_widths=(8, 8), policy_units=64)
MODEL = state_space.StateSpaceConfig(
    kind="dssm_det", channels=16, encoder_width=16, decoder_width=16, blocks=(2, 1), reward_digits=4
)
AGENTS = dict(copy="uniform", uniform="uniform", distilled="distilled", ltq="learned")


class Sizes(NamedTuple):
    """E environments, decisions of an update, and settings of the agent."""

    rows: int = 64
    decisions: int = 5
    settings: dict[str, Any] = SIZES


DRY = Sizes(3, 2, dict(kernels=(3,), strides=(2,), widths=(4,), units=8))


def sizes_of(preset: str) -> Sizes:
    """Of all presets the same, but for dry."""
    return DRY if preset == "dry" else Sizes()


class Playing(NamedTuple):
    """An agent and where it is."""

    env: JaxEnv
    player: unroll.Player
    learner: Learner
    model: Params
    state: LearnerState
    playing: unroll.Playing
    decisions: int  # of an update


def works(preset: str) -> Iterator[Work]:
    """The baseline without a model in both mazes; then every agent in the larger one, by depth of its rollouts."""
    sizes = sizes_of(preset)
    frames = {"frames": UPDATES * sizes.rows * sizes.decisions}
    for maze in ("15x19", "9x11"):
        one = make("none", maze, None, {}, sizes)
        yield compiled(f"model_free {maze}, acts and learns", *loop(one), frames, maze=maze, agent="model_free")
    for horizon in HORIZONS[preset]:
        for name, policy in AGENTS.items():
            settings = sizes.settings | dict(horizon=horizon)
            one = make(policy, "15x19", *model_of(name), sizes._replace(settings=settings))
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


def baseline(preset: str) -> Playing:
    """The agent without a model, with the reward's scale of MiniPacman's regular game."""
    sizes = sizes_of(preset)
    settings = sizes.settings | dict(reward_scale=0.3)
    return make("none", maze_of(preset), None, {}, sizes._replace(settings=settings))


def maze_of(preset: str) -> str:
    """The larger one, but for dry."""
    return "9x11" if preset == "dry" else "15x19"


def make(policy: str, maze: str, query: i2a.Query | None, model: Params, sizes: Sizes) -> Playing:
    """A Playing at the first episodes' first images."""
    env: Any = envs.make_jax("minipacman:regular", maze=maze)
    config = i2a.I2AConfig(rollout_policy=policy, **sizes.settings)
    agent = i2a.make_agent(config, env.spec, query)
    learner = i2a.make(config, agent)
    player = unroll.Player(agent.initial, agent.look, functools.partial(i2a.choose, agent))
    state = jax.jit(learner.init)(jax.random.key(1))
    begin = jax.jit(lambda params: unroll.begin(env, player, params, jax.random.key(2), sizes.rows))
    playing = begin(dict(model=model, agent=state.params))
    return Playing(env, player, learner, model, state, playing, sizes.decisions)


def acting(one: Playing) -> Callable:
    """`act` of `i2a.act_and_learn`."""
    return functools.partial(unroll.unroll, one.env, one.player, count=one.decisions)


def loop(one: Playing, updates: int = UPDATES) -> tuple[Callable, list]:
    """(function, its arguments): so many times acting and learning."""

    def run(model: Params, state: LearnerState, playing: unroll.Playing, key: Array) -> Any:
        def update(carry: Any, key: Array) -> Any:
            state, playing = carry
            state, playing, metrics, _ = i2a.act_and_learn(acting(one), one.learner.update, model, state, playing, key)
            return (state, playing), metrics["loss"]

        return jax.lax.scan(update, (state, playing), jax.random.split(key, updates))

    return run, [one.model, one.state, one.playing, jax.random.key(3)]


def learning(one: Playing) -> tuple[Callable, list]:
    """(function, its arguments): an update alone, from what acting saw."""
    params = dict(model=one.model, agent=one.state.params)
    _, steps, seen = jax.jit(acting(one))(params, jax.random.key(3), one.playing)
    return one.learner.update, [one.state, jax.random.key(4), i2a.Unroll(one.model, steps, seen)]
