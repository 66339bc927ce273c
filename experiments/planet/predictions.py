"""Evaluation of PlaNet: episodes without exploration noise, their videos, and what the model imagines beside them."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.planet import model_error
from experiments.planet.agent import Agent
from wmjax.agents.open_loop import open_loop_images
from wmjax.console import try_drawing
from wmjax.envs import VecEnv
from wmjax.ops import image_bits
from wmjax.report.artifacts import Picture, open_loop_picture
from wmjax.report.metrics import evaluated
from wmjax.report.video import tile, write_strip, write_video
from wmjax.run.collect import Player, padded, play_episodes
from wmjax.run.members import by_member, member
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Array, EnvSpec, Params, Step, image_of

CONTEXT, PREDICTED = 5, 50  # frames seen, and in all, of the open-loop predictions (Fig. 10)
OPEN_LOOP = open_loop_picture(CONTEXT, PREDICTED)
FRAMES_A_SECOND = 25  # of videos: cheetah's own time at action repeat 4


def pictures(labels: Mapping[str, str]) -> list[Picture]:
    """The kinds of pictures that evaluations leave, of each task. labels: as of `agent.labels`."""
    return [
        kind._replace(
            pattern=kind.pattern.replace("*", f"*{label}"), title=f"{kind.title}, {task}" if label else kind.title
        )
        for kind in (OPEN_LOOP, model_error.PICTURE)
        for task, label in labels.items()
    ]


def make_predict(agent: Agent, env_spec: EnvSpec) -> Callable[[Params, Array, Step], np.ndarray] | None:
    """A function (params, key, numpy Step [T, 1]) -> uint8 [T, X, Y, C]: open-loop images of one episode.

    T <= PREDICTED; every T has the same program: shorter episodes are padded, and their images cut. None of a model
    that predicts no images.
    """
    if agent.model.decode is None:
        return None

    @jax.jit
    def images_of(params: Params, key: Array, steps: Step) -> Array:
        images = open_loop_images(agent.model, params, key, steps, action_spec=env_spec.action, context=CONTEXT)
        return image_bits.to_uint8(images[:, 0])

    def predict(params: Params, key: Array, steps: Step) -> np.ndarray:
        return np.asarray(images_of(params, key, padded(steps, PREDICTED)))[: len(steps.reward)]

    return predict


def first_episode(steps: Step, most: int) -> Step:
    """The first episode of row 0 of Step [T, E], up to `most` rows of it: Step [t, 1]."""
    ends = np.flatnonzero(steps.is_last[:most, 0])
    return member(steps, (slice(ends[0] + 1 if len(ends) else most), slice(1)))


def evaluate(
    member_folders: Sequence[pathlib.Path],
    name: str,
    env: VecEnv,
    player: Player,
    predict: Callable | None,
    params: Params,
    keys: Array,
    measure: Callable | None = None,
) -> tuple[list[dict[str, Any]], Step]:
    """Plays one episode in every row of the evaluation pool and shows what was seen and what was predicted, if any.

    Args:
      member_folders: of every member [S]; env: VecEnv of S * M rows; player: greedy Player; predict: from
      `make_predict`; params: [S, ...]; keys: [S]; measure: from `model_error.make_measures`, or None.
    Writes videos/<name>.mp4, a member's M rows side by side, and of its first row videos/open_loop_<name>.png and
    videos/model_error_<name>.png.
    Returns: (metrics of each member: the mean of its returns, their standard deviation and each row's value; what was
      played, Step [T, S * M]).
    """
    play_keys, predict_keys = jax.vmap(jax.random.split)(keys).T
    steps, returns = play_episodes(env, player, params, play_keys, Stopwatch())
    rows = []
    for i, own in enumerate(np.split(returns, len(member_folders))):
        seen = member(by_member(steps, len(member_folders), axis=1), (slice(None), i))
        first = first_episode(seen, PREDICTED)
        videos = member_folders[i] / "videos"
        try_drawing(write_video, videos / f"{name}.mp4", tile(np.swapaxes(image_of(seen.obs), 0, 1)), FRAMES_A_SECOND)
        if predict is not None:
            imagined = predict(member(params, i), predict_keys[i], first)
            try_drawing(write_strip, videos / f"open_loop_{name}.png", image_of(first.obs)[:, 0], imagined, CONTEXT)
        rows.append(evaluated(own))
        if measure is not None:
            found = measure(
                member(params, i), jax.random.fold_in(predict_keys[i], 1), first_episode(seen, len(seen.reward))
            )
            rows[-1] |= model_error.metrics(found)
            try_drawing(model_error.draw, videos / f"model_error_{name}.png", found)
    return rows, steps
