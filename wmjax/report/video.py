"""Videos and prediction pictures: mp4 files (H.264), episodes side by side, open-loop strips, PNG files."""

import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wmjax.storage import files
from wmjax.types import UsageError

HANGS = 300  # seconds after which ffmpeg is ended; a video takes about one
TARGET = 256  # pixels, about the height of a video after upscaling
GAP = 2  # pixels between tiles
LEFT, TOP = 48, 16  # margins of a strip, for the names of its rows and the times of its columns
MARK = 6  # pixels of the marker between context and imagined part
CELL = 64  # smallest side of a strip's frames after upscaling
ORANGE, PAPER, INK = (230, 120, 20), 255, (40, 40, 40)


def write_video(path: str | Path, frames: np.ndarray, fps: float, scale: int | None = None) -> Path:
    """Writes an mp4 that browsers play, whole or not at all.

    Args:
        path: ends in ".mp4".
        frames: uint8 [T, X, Y, C], C 1 or 3.
        fps: frames a second.
        scale: whole factor of nearest-neighbour upscaling; None for about 256 pixels of height.

    Raises:
        UsageError: the disk is full.
        OSError: ffmpeg is not there, cannot be run, hangs or fails otherwise, in its words.
    """
    path, frames = Path(path), _as_rgb(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp").absolute()  # of "a:b/c.mp4" ffmpeg would take a: for a protocol
    try:
        factor = scale or max(1, round(TARGET / frames.shape[1]))
        why = _encode(frames, fps, factor, ["-movflags", "+faststart", "-f", "mp4", str(temporary)])
        if "No space left on device" in why:
            raise UsageError(f"disk full: cannot write {path}")
        if why:
            raise OSError(f"cannot write {path}: {why}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check_ffmpeg() -> None:
    """Encodes two frames for nobody, in a twentieth of a second: raises OSError where no video can be made."""
    why = _encode(np.zeros((2, 16, 16, 3), np.uint8), 1, 1, ["-f", "null", "-"])
    if why:
        raise OSError(why)


def _encode(frames: np.ndarray, fps: float, factor: int, output: list[str]) -> str:
    """Runs ffmpeg on uint8 [T, X, Y, 3]; output: its last arguments. Returns why that failed, "" where it did not."""
    _, rows, columns, _ = frames.shape
    even = f"scale={columns * factor}:{rows * factor}:flags=neighbor,pad=ceil(iw/2)*2:ceil(ih/2)*2"
    arguments = ["-y", "-loglevel", "error"]
    arguments += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}", "-r", str(fps), "-i", "-"]
    arguments += ["-vf", even, "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "23", "-preset", "veryfast"]
    content = frames.tobytes()
    try:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *arguments, *output]
        # its own process group: Ctrl-C reaches the run alone, which ends the video properly
        done = subprocess.run(command, input=content, capture_output=True, process_group=0, timeout=HANGS)
    except subprocess.TimeoutExpired:
        return f"ffmpeg: no answer after {HANGS} s"
    except (OSError, RuntimeError) as error:  # RuntimeError: a wheel of imageio-ffmpeg without it
        return f"ffmpeg cannot be run: {error}"
    return f"ffmpeg says {done.stderr.decode(errors='replace').strip()}" if done.returncode else ""


def tile(frames: np.ndarray) -> np.ndarray:
    """Episodes side by side: uint8 [E, T, X, Y, C] -> [T, X, E * Y + (E - 1) * GAP, 3], black in between."""
    frames = np.stack([_as_rgb(episode) for episode in frames])
    frames = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, GAP), (0, 0)))
    return np.concatenate(list(frames), axis=2)[:, :, :-GAP]


def strip(truth: np.ndarray, prediction: np.ndarray, context: int = 5, every: int = 5) -> np.ndarray:
    """What a model saw and what it then imagined, and their absolute difference, black where equal: see `film`.

    Args:
        truth, prediction: uint8 [T, X, Y, C], C 1 or 3.
        context, every: as in `film`.

    Raises:
        ValueError: the two differ in shape.
    """
    return film(dict(truth=truth, model=prediction, error=difference(truth, prediction)), context, every)


def difference(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 arrays of one shape, which else are a ValueError."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
    return np.abs(truth.astype(np.int16) - prediction).astype(np.uint8)


def film(rows: Mapping[str, np.ndarray], context: int, every: int) -> np.ndarray:
    """Sequences of images below each other, as one picture.

              t=0 | t=5  t=10 ...
        truth  []     []    []         | stands for the orange marker: left of it models were shown the frames,
        model  []     []    []         right of it they imagined from the actions alone

    Args:
        rows: uint8 [T, X, Y, C] by name, C 1 or 3.
        context: frames that were shown.
        every: a column for each time 0, every, 2 * every, ...

    Returns:
        uint8 [rows, columns, 3]; frames smaller than 64 pixels are drawn larger by a whole factor.
    """
    length, size = next(iter(rows.values())).shape[:2]
    times = range(0, length, every)
    factor = max(1, -(-CELL // size))
    films = [upscale(_as_rgb(frames[::every]), factor) for frames in rows.values()]
    _, height, width, _ = films[0].shape
    shown = sum(time < context for time in times)
    names_width = max(LEFT, 8 + 7 * max(map(len, rows)))
    left = [names_width + i * (width + GAP) + (MARK + GAP if i >= shown else 0) for i in range(len(times))]
    picture = np.full((TOP + len(films) * (height + GAP) - GAP, left[-1] + width, 3), PAPER, np.uint8)
    for row, frames in enumerate(films):
        top = TOP + row * (height + GAP)
        for x, frame in zip(left, frames, strict=True):
            picture[top : top + height, x : x + width] = frame
    if 0 < shown < len(times):
        mark = left[shown] - GAP - MARK
        picture[TOP:, mark : mark + MARK] = ORANGE
    return _write_names(picture, list(rows), left, times, height)


def write_film(path: str | Path, rows: Mapping[str, np.ndarray], context: int, every: int) -> Path:
    """Writes a `film` as a PNG file."""
    return write_png(path, film(rows, context, every))


def write_strip(path: str | Path, truth: np.ndarray, prediction: np.ndarray, context: int) -> Path:
    """Writes a `strip` as a PNG file."""
    return write_png(path, strip(truth, prediction, context))


def write_png(path: str | Path, image: np.ndarray) -> Path:
    """Writes uint8 [X, Y, 3] (or [X, Y, 1]) as a PNG file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(path, png(image))
    return path


def png(image: np.ndarray) -> bytes:
    """uint8 [X, Y, 3] (or [X, Y, 1]) as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(_as_rgb(image)).save(content, format="png", optimize=True)
    return content.getvalue()


def upscale(frames: np.ndarray, factor: int) -> np.ndarray:
    """[..., X, Y, C] -> [..., factor * X, factor * Y, C], each pixel a square."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def _as_rgb(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames must be uint8 [..., X, Y, 1 or 3], not {frames.dtype} {frames.shape}")
    return frames if frames.shape[-1] == 3 else frames.repeat(3, axis=-1)


def _write_names(picture: np.ndarray, names: list[str], left: list[int], times: range, height: int) -> np.ndarray:
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    for row, name in enumerate(names):
        draw.text((4, TOP + row * (height + GAP) + height // 2), name, INK, font, anchor="lm")
    for x, time in zip(left, times, strict=True):
        draw.text((x, TOP // 2), f"t={time}", INK, font, anchor="lm")
    return np.asarray(image)
