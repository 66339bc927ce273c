"""Plays an environment at random and prints what a run would get of it, and whether it replays exactly.

    python -m wmjax.run.check_env gym:CarRacing-v3 --env.action_repeat=4 --env.episode_steps=400

Takes every name that a training takes, and options of its environments as --env.NAME=VALUE. Two rows are made twice
from one seed and take the same actions: a resumed run is only as exact as these agree, by a hash of everything shown,
unless the environment's state can be had and set.
The picture has the first row as it is, as PlaNet sees it (64 x 64 of 5 bits) and as Smaller World Models does (96 x 96
grey, four stacked). Exit code 0: may be trained on; 2: not, or not as asked, in one line.
"""

import ast
import hashlib
import pathlib
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw

from wmjax import console, envs
from wmjax.ops import image_bits
from wmjax.report import video
from wmjax.run import cli
from wmjax.storage.files import write_whole
from wmjax.types import ActionSpec, EnvSpec, Step, UsageError, image_of

ROWS = 2
SHOWN = 6  # moments in the picture
STACK = 4  # frames, of Smaller World Models
SIDE = 128  # pixels of an image in the picture


class Play(NamedTuple):
    """What random play has shown of an environment; moments t are the reset and every decision."""

    spec: EnvSpec
    digests: list[str]  # [T], of everything that was shown until each moment
    steps: Step  # [T, E]; obs of the first row alone, [T, ...]
    reset: float  # seconds for each row
    step: float  # seconds for each decision of each row
    megabytes: float  # that the process has grown by
    has_states: bool  # whether a resumed run sets the environment's state


def main(argv: list[str]) -> None:
    """Checks one environment. argv: the command line."""
    name, options, rest = read_words(argv)
    asked = cli.parse_flags(rest, define_flags, __name__)
    if name is None:
        raise UsageError("give the name of an environment, such as gym:CarRacing-v3 or py:my_module:make_env")
    cli.use_jax()
    first = play(name, options, ROWS, asked.seed, asked.decisions)
    for label, text in findings(first):
        console.say(f"{label:<16}{text}")
    again = play(name, options, ROWS, asked.seed, asked.decisions)
    fault = difference(first.digests, again.digests)
    console.say(f"{'same twice':<16}{fault or f'yes, sha256 {first.digests[-1][:16]}'}")
    if len(image_of(first.spec.obs).shape) == 3:
        default = pathlib.Path("runs/check", re.sub(r"[^\w.-]", "_", name) + ".png")
        path = pathlib.Path(asked.picture) if asked.picture else default
        write_whole(path, picture(first, *(seen(first, name, options | dict(size=size), asked) for size in (64, 96))))
        console.say(f"{'picture':<16}{path}")
    if first.has_states:
        console.say(f"{'resumes':<16}by its get_state and set_state, which were tried")
    elif fault:
        raise UsageError(
            f"{name} is no function of its seed and its actions ({fault}): a run cannot be resumed exactly"
        )


def read_words(argv: list[str]) -> tuple[str | None, dict[str, Any], list[str]]:
    """(name or None, options, the other words) of a command line. Raises UsageError for a second name."""
    options, names = {}, [word for word in argv[1:] if not word.startswith("-")]
    if len(names) > 1:
        raise UsageError(f"unexpected argument {names[1]!r}: give one environment, and options as --env.NAME=VALUE")
    for word in argv[1:]:
        match = re.fullmatch(r"--?env\.(\w+)=(.*)", word)
        if match:
            options[match[1]] = read_value(match[2])
    rest = [word for word in argv if word not in names and not re.match(r"--?env\.\w+=", word)]
    return next(iter(names), None), options, rest


def read_value(text: str) -> Any:
    """A value of Python, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def define_flags(values: Any, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.int_flag(values, "decisions", 100, "decisions of each play", STACK, 10**6)
    cli.int_flag(values, "seed", 0, "of the environments and of the actions", 0)
    cli.path_flag(values, "picture", "where the picture goes; without it runs/check/<name>.png")


def play(name: str, options: dict[str, Any], rows: int, seed: int, decisions: int) -> Play:
    """Plays by chance: a Play. The arguments are as of `envs.make`; rows: at most ROWS; decisions: of each row."""
    before, rng = resident(), np.random.default_rng(seed)
    env = envs.make(name, rows, seed, **options)
    digest, digests, steps = hashlib.sha256(), [], []

    def note(step: Any) -> None:
        for leaf in jax.tree.leaves(step):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        digests.append(digest.hexdigest())
        steps.append(step.replace(obs=jax.tree.map(lambda x: x[0], step.obs)))

    times = [time.perf_counter()]
    try:
        note(env.reset())
        times.append(time.perf_counter())
        for _ in range(decisions):
            note(env.step(by_chance(rng, env.spec.action)[:rows]))
        times.append(time.perf_counter())
    finally:
        env.close()
    reset, step = np.diff(times) / rows
    steps = jax.tree.map(lambda *xs: np.stack(xs), *steps)
    grown, has_states = (resident() - before) / 1e6, getattr(env, "has_states", False)
    return Play(env.spec, digests, steps, reset, step / decisions, grown, has_states)


def by_chance(rng: np.random.Generator, spec: ActionSpec) -> np.ndarray:
    """Actions of ROWS rows, each as likely as any other: int [E] or float32 [E, A]. spec: an ActionSpec."""
    if spec.discrete:
        return rng.integers(0, spec.size, ROWS)
    return rng.uniform(spec.low, spec.high, (ROWS, spec.size)).astype(np.float32)


def resident() -> int:
    """The most bytes of memory that this process has held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def difference(digests: Sequence[str], others: Sequence[str]) -> str:
    """The first moment in which two plays differ, in words; "" where they are equal."""
    for moment, (digest, other) in enumerate(zip(digests, others, strict=True)):
        if digest != other:
            return f"no, they differ {f'after decision {moment}' if moment else 'at the reset'}"
    return ""


def findings(played: Play) -> Iterator[tuple[str, str]]:
    """(label, text) of every line about a Play."""
    spec, steps = played.spec, played.steps
    image, action = image_of(steps.obs), spec.action
    for path, leaf in jax.tree_util.tree_leaves_with_path(spec.obs):
        key = jax.tree_util.keystr(path, simple=True)
        yield f"observes {key}".rstrip(), f"{leaf.dtype} {tuple(leaf.shape)}"
    yield "actions", f"one of {action.size}" if action.discrete else f"{action.size}, {action.low:g} to {action.high:g}"
    yield "action repeat", f"{spec.action_repeat}"
    none = "none is known: an episode that does not end is collected for ever, set --env.episode_steps=N"
    yield "time limit", f"{spec.time_limit} decisions" if spec.time_limit else none
    still = np.mean([np.array_equal(one, two) for one, two in zip(image, image[1:], strict=False)])
    yield "images", f"{image.min()} to {image.max()}; {still:.0%} of the decisions change nothing in them"
    yield "rewards", f"{steps.reward.min():g} to {steps.reward.max():g}, mean {steps.reward[1:].mean():.3g}"
    terminal = int((steps.is_last & (steps.discount == 0)).sum())
    yield "episodes", f"{int(steps.is_last.sum())} ended, {terminal} of them for good (discount 0)"
    yield "seconds", f"{played.reset:.4f} a reset, {played.step:.4f} a decision"
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(spec.obs))
    yield "memory", f"{played.megabytes:.0f} MB for {ROWS} rows; {kept * 1e-3:.1f} kB of replay a decision"


def seen(played: Play, name: str, options: dict[str, Any], asked: Any) -> np.ndarray:
    """Images uint8 [T, size, size, C] of the first row, made anew with another size; where the environment has only one
    size, those of `played`."""
    try:
        return image_of(play(name, options, 1, asked.seed, asked.decisions).steps.obs)
    except UsageError:
        return image_of(played.steps.obs)


def picture(played: Play, small: np.ndarray, large: np.ndarray) -> bytes:
    """A PNG, bytes: SHOWN moments as they are and for PlaNet, the last STACK images for Smaller World Models.

    Args: played: a Play; small, large: uint8 [T, 64, 64, C] and [T, 96, 96, C], or of the environment's one size.
    """
    original = image_of(played.steps.obs)
    moments = np.linspace(0, len(original) - 1, SHOWN).astype(int)
    planet = np.asarray(image_bits.to_uint8(image_bits.bin_centre(small[moments], 5)))
    newest = [grey(image) for image in large[-STACK:]]
    discrete = "" if played.spec.action.discrete else "; it needs discrete actions, which these are not"
    strips = {
        f"as it is, {' x '.join(map(str, original.shape[1:]))}, moments {', '.join(map(str, moments))}": [
            pixels(image) for image in original[moments]
        ],
        f"PlaNet: {small.shape[1]} x {small.shape[2]}, 5 bits": [pixels(image) for image in planet],
        f"Smaller World Models: {large.shape[1]} x {large.shape[2]}, grey, the newest {STACK} in one{discrete}": newest,
    }
    sheet = Image.new("RGB", (SHOWN * (SIDE + 4), len(strips) * (SIDE + 18)), "white")
    for row, (label, strip) in enumerate(strips.items()):
        ImageDraw.Draw(sheet).text((2, row * (SIDE + 18)), label, fill="black")
        for column, image in enumerate(strip):
            shown = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(shown, (column * (SIDE + 4), row * (SIDE + 18) + 14))
    return video.png(np.asarray(sheet))


def pixels(image: np.ndarray) -> Image.Image:
    """uint8 [X, Y, C] as a picture: its newest three channels, or its newest one."""
    return Image.fromarray(image[..., -3:] if image.shape[-1] % 3 == 0 else image[..., -1])


def grey(image: np.ndarray) -> Image.Image:
    """The luminance of `pixels`."""
    return pixels(image).convert("L")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
