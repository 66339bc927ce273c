"""How a user's own environment is seen: its image, resized, grey or drawn, and numbers beside it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from wmjax.envs.check import check_int
from wmjax.types import NonFiniteError, UsageError

MOST_CHANNELS = 16  # an image with more channels than this, and fewer rows, has its channels first


class View(NamedTuple):
    """How an environment is decided in and seen.

    action_repeat: environment steps a decision, rewards summed; episode_steps: time limit in environment steps, None:
    the environment's own; size: side of the square image it is resized to, None: as it is; grey: one channel;
    image_key: of the image in a dict of observations; render: environment -> uint8 [X, Y, C], None: the observation is
    the image, or what the environment renders where it is none; stack: newest images, of one decision each, in the
    channels of one, oldest first, an episode's first one for those before it; vector_keys: of numbers in a dict of
    observations that are shown beside the image, {"image": ..., "vector": float32 [V]}.
    """

    action_repeat: int = 1
    episode_steps: int | None = None
    size: int | None = None
    grey: bool = False
    image_key: str = "pixels"
    render: Callable[[Any], np.ndarray] | None = None
    stack: int = 1
    vector_keys: tuple[str, ...] = ()


def check_view(view: View) -> None:
    """Raises UsageError for values out of range."""
    check_int("action_repeat", view.action_repeat, low=1, high=100)
    check_int("episode_steps", view.episode_steps, low=1, high=10**9, optional=True)
    check_int("size", view.size, low=8, high=256, optional=True)
    check_int("stack", view.stack, low=1, high=16)
    if not isinstance(view.grey, bool):
        raise UsageError(f"grey={view.grey!r} is not allowed: expected True or False.")
    if not isinstance(view.image_key, str):
        raise UsageError(f"image_key={view.image_key!r} is not allowed: expected the name of an observation.")
    if not isinstance(view.vector_keys, tuple | list) or not all(isinstance(key, str) for key in view.vector_keys):
        raise UsageError(
            f"vector_keys={view.vector_keys!r} is not allowed: expected names of observations, ('speed',)."
        )


def one_line(value: Any) -> str:
    """A value or a space as one line of a message."""
    return " ".join(repr(value).split())


def read_image(env: Any, obs: Any, view: View) -> np.ndarray:
    """Returns the image of one row, uint8 [X, Y, C], as a copy."""
    from PIL import Image  # only where a user's own environment is seen

    image = np.array(_image_of(env, obs, view))
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise UsageError(
            f"{type(env).__name__} shows {image.dtype} {image.shape}: expected an image, uint8 [X, Y, C] or [X, Y]; "
            "pass render=function(environment), or make it with render_mode='rgb_array'."
        )
    image = image if image.ndim == 3 else image[..., None]
    first, _, last = image.shape
    if last not in (1, 3) and (first in (1, 3) or first <= MOST_CHANNELS < last):
        raise UsageError(
            f"{type(env).__name__} shows an image of {image.shape}: expected [X, Y, C], channels last, and these seem "
            "to be first; pass render=function(environment) or wrap it."
        )
    if view.grey and last == 3:
        image = np.array(Image.fromarray(image).convert("L"))[..., None]
    if view.size is not None and image.shape[:2] != (view.size, view.size):
        channels = [Image.fromarray(image[..., i]) for i in range(image.shape[-1])]
        resized = [np.array(channel.resize((view.size, view.size), Image.Resampling.BOX)) for channel in channels]
        image = np.stack(resized, axis=-1)
    return image


def read_vector(env: Any, obs: Any, keys: Sequence[str]) -> np.ndarray:
    """Returns the numbers under some keys of one row's observation, one after the other, float32 [V]."""
    values = []
    for key in keys:
        if not hasattr(obs, "keys") or key not in obs:
            names = ", ".join(map(str, obs.keys())) if hasattr(obs, "keys") else "none, for they are no dict"
            raise UsageError(f"vector_keys: {type(env).__name__} has no observation {key!r}; its names: {names}.")
        value = np.asarray(obs[key])
        if value.dtype.kind not in "biuf":
            raise UsageError(f"vector_keys: {key!r} of {type(env).__name__} is {one_line(value)}: expected numbers.")
        values.append(value.astype(np.float32).ravel())
        if not np.isfinite(values[-1]).all():
            raise NonFiniteError(f"{key!r} of {type(env).__name__} is not finite: {one_line(value)}.")
    return np.concatenate(values)


def _image_of(env: Any, obs: Any, view: View) -> Any:
    """What is taken for the image: what `render` or the observation gives, or else what the environment renders."""
    if view.render is not None:
        return view.render(env)
    if hasattr(obs, "keys"):
        obs = obs[view.image_key] if view.image_key in obs else None
    array = np.asarray(obs)
    if (array.dtype != np.uint8 or array.ndim not in (2, 3)) and getattr(env, "render_mode", None) == "rgb_array":
        return env.render()
    return obs
