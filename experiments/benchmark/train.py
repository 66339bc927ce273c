"""One update of PlaNet's RSSM at the paper's sizes, and where its time goes."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark import rivals
from experiments.benchmark.data import FLOAT, HALF, SPEC, planet, random_steps, with_dtype
from wmjax import imagine
from wmjax.models import rssm
from wmjax.models.rssm.learner import make_optimizer
from wmjax.ops import gaussian
from wmjax.ops.axes import fold
from wmjax.report.benchmark import Finding, Work, compiled
from wmjax.types import Array, LearnerState, Params, State, Step

SIZES = dict(
    quick=[(16, 20, FLOAT), (16, 20, HALF)],
    paper=[(16, 20, FLOAT), (16, 64, FLOAT), (50, 50, FLOAT)],
    accelerator=[(16, 20, FLOAT), (16, 20, HALF), (50, 50, FLOAT), (50, 50, HALF)],
    dry=[(1, 2, FLOAT), (1, 2, HALF), (2, 3, FLOAT), (2, 3, HALF)],
)
PARTS = dict(quick=[(16, 20)], paper=[(50, 50)])


def works(preset: str) -> Iterator[Work | Finding]:
    """Whole updates, then the parts of one, each compiled alone with its own gradient."""
    for batch, time, dtype in SIZES[preset]:
        ours = update(preset, batch, time, dtype)
        yield ours
        if preset in PARTS and dtype == FLOAT:  # as rivals compute
            yield from rivals.updates(ours, batch, time, SPEC.action.size)
    for batch, time in PARTS.get(preset, ()):
        model, learner = rssm.make(rssm.RSSMConfig(), SPEC)
        state = jax.jit(learner.init)(jax.random.key(0))
        for name, function, args in parts(model, state, jax.device_put(random_steps(batch, time))):
            yield compiled(f"{name}, {batch} x {time}", function, args, {"frames": batch * time}, piece=name)


def update(preset: str, batch: int, time: int, dtype: str = FLOAT) -> Work:
    """The Work of one update on chunks of batch x time."""
    config, spec = planet(preset, compute_dtype=dtype)
    _, learner = rssm.make(config, spec)

    def args() -> tuple[Any, ...]:
        state = jax.jit(learner.init)(jax.random.key(0))
        return state, jax.random.key(1), jax.device_put(random_steps(batch, time, spec=spec))

    name = with_dtype(f"update, {batch} x {time}", dtype)
    amounts = {"frames": batch * time, "updates": 1}
    return compiled(name, learner.update, args, amounts, batch=batch, time=time, dtype=dtype)


def parts(model: Any, state: LearnerState, batch: Step) -> Iterator[tuple[str, Callable, tuple]]:
    """(name, function, args) of the pieces of an update: forward and backward pass of each, and the optimiser.

    Every piece gets its inputs as arguments and gives gradients for them where the update needs them.
    """
    rows, time = batch.reward.shape
    params, obs = state.params, fold(batch.obs)
    embed = jax.jit(model.encode)(params, obs)

    def scan(params: Params, embed: Array) -> Any:
        return imagine.filter(
            model,
            params,
            jax.random.key(1),
            model.initial(params, rows),
            prev_action=batch.prev_action,
            embed=embed.reshape(rows, time, -1),
            is_first=batch.is_first,
        )[1:]

    def scan_loss(params: Params, embed: Array) -> Array:
        states, prior = scan(params, embed)
        return gaussian.kl_diagonal(states.mean, states.std, *prior).mean() + model.features(params, states).mean()

    def decoder_loss(params: Params, states: State) -> Array:
        image = model.decode(params, states)
        return -gaussian.unit_log_prob(obs / 255.0 - 0.5, image, 3).mean()

    def reward_loss(params: Params, states: State) -> Array:
        return -gaussian.unit_log_prob(batch.reward.reshape(-1), model.reward(params, states), 0).mean()

    def encoder_loss(params: Params) -> Array:
        return jnp.square(model.encode(params, obs)).mean()

    optimizer = make_optimizer(rssm.RSSMConfig())
    states = fold(jax.jit(scan)(params, embed)[0])
    yield "encoder", jax.grad(encoder_loss), (params,)
    yield "scan", jax.grad(scan_loss, (0, 1)), (params, embed)
    yield "decoder", jax.grad(decoder_loss, (0, 1)), (params, states)
    yield "reward head", jax.grad(reward_loss, (0, 1)), (params, states)
    yield "optimiser", optimizer.update, (params, optimizer.init(params), params)
