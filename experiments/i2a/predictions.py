"""Pictures of what an agent imagines."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.i2a.agent import Settings, World, played_actions
from wmjax import imagine
from wmjax.console import try_drawing
from wmjax.ops.axes import fold
from wmjax.report.artifacts import Picture
from wmjax.report.video import write_film
from wmjax.types import Array, EnvSpec, Params, Step, image_of

FILM = 40  # decisions of an evaluation before the picture
STEPS = 6  # of the model, shown
ROLLOUTS = Picture(
    "rollouts_*.png",
    "Imagined rollouts",
    "Left of the orange marker the frames from which the state was made; right of it what the model imagines if one "
    "action is held, a row for each action, a frame for each step of the model.",
)
ATARI = {0: "noop", 1: "fire", 2: "up", 3: "right", 4: "left", 5: "down"}


def make_show(world: World, spec: EnvSpec) -> Callable | None:
    """A jitted function (params of the model, key, obs [images, ...] of one row) -> uint8 [A, STEPS, X, Y, C].

    None where there is no model, or it draws nothing.
    """
    query, decode, actions = world.query, world.decode, spec.action.size
    if query is None or decode is None:
        return None

    def show(params: Params, key: Array, obs: Array) -> Array:
        embeds = jax.tree.map(lambda x: jnp.repeat(x[None], actions, axis=0), query.model.encode(params, obs))
        held = jnp.tile(jnp.eye(actions), (1, query.jump))  # [A, jump * A]
        repeated = jnp.broadcast_to(held[None], (STEPS, *held.shape))
        states = imagine.open_loop(query.model, params, key, query.begin(params, embeds), repeated)
        images = decode(params, fold(states))
        images = jnp.rint(255 * jnp.clip(images, 0, 1)).astype(jnp.uint8)
        return images.reshape(STEPS, actions, *images.shape[1:]).swapaxes(0, 1)

    return jax.jit(show)


def draw(
    show: Callable | None,
    settings: Settings,
    world: World,
    trained: Params,
    folder: pathlib.Path,
    updates: int,
    key: Array,
    film: Step,
) -> None:
    """Writes videos/rollouts_<updates>.png from the first row's last frames of numpy Step [T, E].

    trained: the part of the model's parameters that the agent trains.
    """
    if show is None or world.query is None:
        return
    row = jax.tree.map(lambda x: x[-world.query.images :, 0], film.obs)
    begun = np.flatnonzero(film.is_first[-world.query.images :, 0])
    if len(row_images := image_of(row)) < world.query.images or len(begun[begun > 0]):
        return  # an episode began in between
    imagined = np.asarray(show(world.query.merge(world.params, trained), key, row))
    images = {
        name: np.concatenate([row_images, own])
        for name, own in zip(names_of(settings, len(imagined)), imagined, strict=True)
    }
    path = folder / "videos" / f"rollouts_{updates:07d}.png"
    try_drawing(write_film, path, images, world.query.images, 1)


def names_of(settings: Settings, count: int) -> list[str]:
    """What the actions are called."""
    if settings.task.startswith("minipacman:"):
        return ["noop", "up", "right", "left", "down"]
    if settings.task.startswith("atari:"):
        return [ATARI.get(number, f"action {number}") for number in played_actions(settings.task, settings.env)]
    return [f"action {number}" for number in range(count)]
