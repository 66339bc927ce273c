"""Evaluation of a trained model: held-out accuracy and rewards, open-loop images, pictures of codes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.smaller_world_models.agent import Agent
from experiments.smaller_world_models.phases import newest, stacked
from wmjax import imagine, replay
from wmjax.agents.open_loop import open_loop_images
from wmjax.console import try_drawing
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.report.artifacts import Picture, open_loop_picture
from wmjax.report.video import tile, write_png, write_strip, write_video
from wmjax.run.members import member
from wmjax.types import Array, EnvSpec, Params, State, Step, WorldModel

CONTEXT, PREDICTED = 5, 50  # frames seen, and in all, of open-loop predictions
OPEN_LOOP = open_loop_picture(CONTEXT, PREDICTED)
CODES = Picture(
    "codes_*.png",
    "Codes",
    "Frames, the codes they become, each in a colour of its own, and what the decoder makes of them.",
)
HELD_OUT = 4  # evaluation episodes whose first FILM steps are predicted
FILM = 500  # frames of an evaluation's video
FRAMES_A_SECOND = 15  # of videos: the game's own time at four frames a decision


def make_predict(agent: Agent, env_spec: EnvSpec, count: int) -> Callable:
    """A jitted function (params, key, Step [T, 1]) -> uint8 [T, X, Y, 1 or 3]: open-loop images, the newest frame."""
    channels = env_spec.obs_shape[-1] // count

    def predict(params: Params, key: Array, steps: Step) -> Array:
        logits = open_loop_images(agent.model, params, key, steps, action_spec=env_spec.action, context=CONTEXT)
        means = agent.image(logits[:, 0, ..., -channels:])
        return jnp.round(255 * means).astype(jnp.uint8)

    return jax.jit(predict)


def windows(steps: Step) -> Step:
    """Step [T, E] -> Step [B, PREDICTED]: the first HELD_OUT rows cut into pieces, what is left over dropped.

    Rows shorter than one piece (no game is) give pieces as long as they are.
    """
    steps = jax.tree.map(lambda x: x[:, :HELD_OUT], steps)
    length = min(PREDICTED, len(steps.reward))
    count = len(steps.reward) // length
    cut = jax.tree.map(lambda x: x[: count * length].reshape(count, length, *x.shape[1:]), steps)
    return jax.tree.map(lambda x: np.moveaxis(x, 2, 1).reshape(-1, length, *x.shape[3:]), cut)


def make_prediction_metrics(agent: Agent, env_spec: EnvSpec, count: int) -> Callable:
    """A jitted function (params, key, Replay, Step [B, T] never trained on) -> metrics of predictions.

    one_step/*: of each next step, from all before it in its piece; open_loop/*: of all steps after the first CONTEXT
    ones. accuracy: share of codes sampled by the model that are right; copy_last_frame: baseline, the codes of the last
    image seen; majority_baseline: the most frequent code at each position in 1,000 images of the replay.
    reward_expected, reward_true: sums of expected and of true rewards (clipped to -1, 0, 1); an overfit reward head
    expects fewer than there are. What follows the beginning of another episode does not count.
    """

    model, action_spec = agent.model, env_spec.action

    def codes(params: Params, states: State) -> Array:
        """Of states with leading axes [B, T]."""
        return unfold_like(agent.codes(params, jax.tree.map(fold, states)), jax.tree.leaves(states)[0])

    def measure(params: Params, key: Array, memory: replay.Replay, steps: Any) -> dict[str, Array]:
        filter_key, next_key, open_key, sample_key = jax.random.split(key, 4)
        sampled = stacked(replay.sample(memory, sample_key, 1000, count), count).obs[:, 0]
        sampled = imagine.begin(model, params, filter_key, sampled, action_spec)
        majority = most_frequent(agent.codes(params, sampled))[None, None]
        action = model_action(steps.prev_action, action_spec)
        steps = steps.replace(is_first=steps.is_first.at[:, 0].set(True))
        _, states, _ = imagine.filter_steps(model, params, filter_key, steps, action_spec)
        context = min(CONTEXT, action.shape[1] - 1)
        after, imagined = predict_both(model, params, (next_key, open_key), states, action, context)

        truth = codes(params, states)  # [B, T, X, Y]
        counts = jnp.cumsum(steps.is_first[:, 1:], axis=1) == 0  # [B, T - 1]
        one_step = dict(accuracy=codes(params, after), copy_last_frame=truth[:, :-1], majority_baseline=majority)
        last = truth[:, context - 1 : context]
        open_loop = dict(accuracy=codes(params, imagined), copy_last_frame=last, majority_baseline=majority)
        metrics = share_right("one_step", one_step, truth[:, 1:], counts)
        metrics |= share_right("open_loop", open_loop, truth[:, context:], counts[:, context - 1 :])
        expected = imagine.rewards(model, params, jax.tree.map(lambda x: x[:, 1:], states))
        metrics |= reward_sums("one_step", expected, steps.reward[:, 1:], counts)
        expected = imagine.rewards(model, params, imagined)
        return metrics | reward_sums("open_loop", expected, steps.reward[:, context:], counts[:, context - 1 :])

    return jax.jit(measure)


def predict_both(
    model: WorldModel, params: Params, keys: Sequence[Array], states: State, action: Array, context: int
) -> tuple[State, State]:
    """Prior states of steps 1 .. T - 1 each from the posterior before it, and of steps `context` .. T - 1 in one go.

    Args: keys: two; states: posterior ones [B, T]; action: [B, T, A] that led to them.
    Returns: (states [B, T - 1], states [B, T - context]).
    """
    next_key, open_key = keys
    before, start = (jax.tree.map(lambda x, at=at: x[:, at], states) for at in (slice(0, -1), context - 1))
    after = model.imagine(params, next_key, jax.tree.map(fold, before), fold(action[:, 1:]))
    after = jax.tree.map(lambda x: unfold_like(x, action[:, 1:]), after)
    imagined = imagine.open_loop(model, params, open_key, start, time_first(action[:, context:]))
    return after, jax.tree.map(time_first, imagined)


def share_right(name: str, guesses: dict[str, Array], truth: Array, counts: Array) -> dict[str, Array]:
    """{name/guess: share of codes guessed right} of guesses, each as truth [B, T, X, Y] or broadcast to it."""
    same = {key: (guess == truth).mean((2, 3)) for key, guess in guesses.items()}
    return {f"{name}/{key}": jnp.average(x, weights=counts) for key, x in same.items()}


def reward_sums(name: str, expected: Array, reward: Array, counts: Array) -> dict[str, Array]:
    """{name/reward_expected, name/reward_true: sums over the steps that count}; all [B, T]."""
    rewards = dict(expected=expected, true=jnp.round(jnp.clip(reward, -1.0, 1.0)))
    return {f"{name}/reward_{key}": (x * counts).sum() for key, x in rewards.items()}


def most_frequent(codes: Array) -> Array:
    """int32 [N, X, Y] -> [X, Y]: the most frequent one at each position."""
    same = (codes[:, None] == codes[None]).sum(1)  # [N, X, Y]: how many images have the code that this one has
    return jnp.take_along_axis(codes, same.argmax(0)[None], axis=0)[0]


def make_reconstruct(agent: Agent, env_spec: EnvSpec, count: int) -> Callable:
    """A jitted function (params, obs uint8 [B, X, Y, C]) -> (codes int32 [B, G, G], uint8 [B, X, Y, 1 or 3])."""
    channels = env_spec.obs_shape[-1] // count
    decode: Any = agent.model.decode  # not None: a VQ-VAE has pixels

    def reconstruct(params: Params, obs: Array) -> tuple[Array, Array]:
        state = imagine.begin(agent.model, params, jax.random.key(0), obs, env_spec.action)
        logits = decode(params, state)
        means = agent.image(logits[..., -channels:])
        return agent.codes(params, state), jnp.round(255 * means).astype(jnp.uint8)

    return jax.jit(reconstruct)


def code_picture(obs: np.ndarray, codes: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Frames above their codes, each code in a random colour of its own, above reconstructions (as in Fig. 10).

    Args: obs, reconstructions: uint8 [B, X, Y, 1 or 3]; codes: int32 [B, G, G].
    Returns: uint8 [3 * X + gaps, B * Y + gaps, 3].
    """
    colours = np.random.default_rng(0).integers(0, 256, (1 + int(codes.max()), 3)).astype(np.uint8)
    height, width = (side // cells for side, cells in zip(obs.shape[1:3], codes.shape[1:], strict=True))
    maps = colours[codes].repeat(height, axis=1).repeat(width, axis=2)
    return np.concatenate([tile(images[:, None])[0] for images in (obs, maps, reconstructions)])


def last_window(steps: Step, length: int) -> Step:
    """The newest `length` rows inside one episode of Step [T, E] in row 0, or the last ones if there are none."""
    begun = np.flatnonzero(steps.is_first[:, 0])
    ends = [*begun[::-1], 0] if not len(begun) or begun[0] else begun[::-1]
    stop = len(steps.reward)
    for start in ends:
        if stop - start >= length:
            return jax.tree.map(lambda x, stop=stop: x[stop - length : stop, :1], steps)
        stop = start
    return jax.tree.map(lambda x: x[-length:, :1], steps)


def last_windows(steps: Step) -> Step:
    """The newest PREDICTED rows inside one episode of every member, Step [PREDICTED, S], of Step [T, S]."""
    rows = [member(steps, (slice(None), slice(i, i + 1))) for i in range(steps.reward.shape[1])]
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *(last_window(row, PREDICTED) for row in rows))


class Show(NamedTuple):
    """What an evaluation shows of a model, compiled."""

    predict: Callable  # of make_predict
    measure: Callable  # of make_prediction_metrics
    reconstruct: Callable  # of make_reconstruct
    frames: int  # newest ones in an image


def make_show(agent: Agent, env_spec: EnvSpec, frames: int) -> Show:
    """A Show. frames: newest ones in an image."""
    predict = make_predict(agent, env_spec, frames)
    measure = make_prediction_metrics(agent, env_spec, frames)
    return Show(predict, measure, make_reconstruct(agent, env_spec, frames), frames)


def show_members(
    show: Show,
    member_folders: Sequence[Path],
    name: str,
    film: Step,
    window: Step,
    params: Params,
    keys: Array,
    memory: replay.Replay,
) -> list[dict[str, Any]]:
    """Draws what every member's model makes of its evaluation and of what was collected, and measures it.

    Args: film: Step [T, S * episodes] of the evaluation; window: Step [PREDICTED, S] that was collected; params,
      keys, memory: [S]. Writes videos/<name>.mp4, open_loop_<name>.png and codes_<name>.png; what cannot be written is
      a warning.
    Returns: metrics of each member on episodes that no update saw.
    """
    rows, episodes = [], film.reward.shape[1] // len(member_folders)
    for i, folder in enumerate(member_folders):
        seen = member(film, (slice(None), slice(i * episodes, (i + 1) * episodes)))
        collected = member(window, (slice(None), slice(i, i + 1)))
        draw(show, folder / "videos", name, newest(seen, show.frames).obs[:, 0], collected, member(params, i), keys[i])
        found = jax.device_get(show.measure(member(params, i), keys[i], member(memory, i), windows(seen)))
        rows.append({f"eval/{key}": value for key, value in found.items()})
    return rows


def draw(show: Show, videos: Path, name: str, film: np.ndarray, window: Step, params: Params, key: Array) -> None:
    """Writes an evaluation's video, an open-loop prediction and the codes of eight frames of what was collected."""
    try_drawing(write_video, videos / f"{name}.mp4", film, FRAMES_A_SECOND)
    truth = newest(window, show.frames).obs[:, 0]
    imagined = np.asarray(show.predict(params, key, window))
    try_drawing(write_strip, videos / f"open_loop_{name}.png", truth, imagined, CONTEXT)
    some = slice(0, None, max(1, len(truth) // 8))
    codes, drawn = jax.device_get(show.reconstruct(params, window.obs[some, 0]))
    try_drawing(write_png, videos / f"codes_{name}.png", code_picture(truth[some], codes, drawn))
