"""Checks this machine point by point: prints `ok`, or `mend` with the one command that mends it.

    python -m wmjax.doctor
    python -m wmjax.doctor --config=experiments/planet/config.py:cheetah_run,cpu

With a config it hands over to the doctor of that experiment, which also tells what the run needs and about how long it
takes. Exit code 0: all is ok; 1: something is to be mended; 2: bad input.
"""

import importlib
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

from wmjax import console  # other modules are imported where they are used: packages may be missing here

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "envpool", "dm_control", "mujoco", "imageio-ffmpeg")
OLDEST_PYTHON, OLDEST_DRIVER = (3, 11), 525  # the driver: CUDA 12's
GOOGLE, TPUS = "0x1ae0", "0x0027 0x0056 0x005e 0x0062 0x0063 0x006f 0x0076".split()  # PCI: vendor and chips
SHOWN = 100  # characters of an error or a version that are printed
JAX_SHARE = 0.75  # of a GPU's memory, which jax takes at its first array unless a variable sets another
FOR_DRAWING = 1.0  # GB of a card for the contexts of EGL: an allowance, not measured

DM_CONTROL = """
from wmjax.envs import gl
gl.load_libraries()
from dm_control import suite
suite.load("cartpole", "balance").physics.render(16, 16)
"""
GAME = """
from wmjax import envs
envs.make("atari:Pong", 1, 0).reset()
"""


class Point(NamedTuple):
    """One check and its outcome."""

    name: str  # what was checked
    result: str  # in words
    mend: str = ""  # the command that mends it; "" where all is well


class Needs(NamedTuple):
    """What a run needs in addition to what this process already holds."""

    memory: int = 0  # bytes
    disk: int = 0  # bytes
    smaller: str = ""  # the override that makes the run fit where there is less memory


def main(argv: list[str]) -> None:
    """Looks at the machine, or hands over to the doctor of --config. argv: the command line."""
    from wmjax.run import cli
    from wmjax.storage import files

    for name in cli.config_names(argv[1:]):
        return doctor_beside(name)(argv)
    options = cli.parse_flags(argv, define_flags, __name__)
    if options.workdir:
        files.check_place(options.workdir)
    tell(itertools.chain(machine(), room(options.workdir)))


def define_flags(values: Any, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    from wmjax.run import cli

    cli.path_flag(values, "config", "FILE:ARGUMENT of a run, with overrides --config.key=value: what does it need?")
    cli.path_flag(values, "workdir", "folder of runs; none: the present one")


def doctor_beside(name: str) -> Callable[[list[str]], None]:
    """The main of doctor.py in the folder of the config file, which may import the experiment.

    Args: name: "FILE:ARGUMENT" as of --config. Raises: UsageError where there is none.
    """
    from wmjax.types import UsageError

    folder = pathlib.Path(name.partition(":")[0]).absolute().parent
    for root in (pathlib.Path.cwd(), ROOT):  # from where modules are imported
        if folder.is_relative_to(root) and folder != root and (folder / "doctor.py").is_file():
            return importlib.import_module(".".join([*folder.relative_to(root).parts, "doctor"])).main
    raise UsageError(f"--config={name}: no doctor.py beside it")


def tell(points: Iterable[Point]) -> None:
    """Prints every Point as it comes. Raises SystemExit(1) at the end if something is to be mended."""
    faults = 0
    for point in points:
        console.say(f"{'mend' if point.mend else 'ok  '} {point.name}: {point.result}")
        if point.mend:
            faults += 1
            console.say(f"     type: {point.mend}")
    console.say(f"to be mended: {faults}" if faults else "all is ok")
    if faults:
        raise SystemExit(1)


def with_run(run: Callable[[], Iterator[Point]], workdir: str | None) -> Iterator[Point]:
    """Yields the Points of the machine and, where all of them are ok, those of a run.

    Args: run: yields the Points of the run; workdir: where the run is to be, None: the present folder.
    """
    faults = 0
    for point in machine():
        faults += bool(point.mend)
        yield point
    if faults:
        yield from room(workdir)
        yield Point("run", "to be looked at when the machine is ok")
    else:
        yield from run()


def machine() -> Iterator[Point]:
    """The Points of the machine itself, whatever is run on it."""
    yield from installation()
    yield devices()
    yield from shared_card()
    yield from drawing()


# -- what is installed: the standard library alone


def installation() -> list[Point]:
    """Python and the packages."""
    installed = {name: version(name) for name in PACKAGES}
    lock = ROOT / "launch" / "install" / "locks" / f"py{'311' if sys.version_info[:2] == (3, 11) else '312'}.txt"
    locked = read_lock(lock.read_text()) if lock.exists() else {}
    return [python(sys.version_info[:3]), packages(installed, locked, pathlib.Path(sys.prefix) == ROOT / ".venv")]


def version(package: str) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_lock(text: str) -> dict[str, str]:
    """{package: version} of a lock's text, for PACKAGES."""
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE))
    return {name: pins[plain] for name in PACKAGES if (plain := name.replace("_", "-")) in pins}


def python(running: tuple[int, ...]) -> Point:
    """Whether Python is new enough."""
    mend = "" if running >= OLDEST_PYTHON else "make setup PYTHON=python3.11"
    return Point("Python", ".".join(map(str, running)), mend)


def packages(installed: Mapping[str, str | None], locked: Mapping[str, str], in_clone: bool) -> Point:
    """Whether packages are installed, in the locked versions.

    Args: installed: {package: version or None}; locked: {package: version}, {} where there is no lock; in_clone:
      whether this Python is that of the clone's .venv.
    """
    missing = [name for name, found in installed.items() if found is None]
    differing = {name: found for name, found in installed.items() if found and locked.get(name, found) != found}
    if in_clone:  # `make setup` does nothing where this file says that it has finished
        mend = "rm -f .venv/installed && make setup"
    elif locked:
        mend = "make setup && .venv/bin/python -m wmjax.doctor"
    else:
        mend = f"{sys.executable} -m pip install {' '.join(missing)}"
    if missing:
        return Point("packages", f"{', '.join(missing)} missing", mend)
    if differing:
        versions = [f"{name} {found} where {locked[name]} is locked" for name, found in differing.items()]
        return Point("packages", ", ".join(versions), mend)
    versions = [f"{name} {found}" for name, found in installed.items()]
    return Point("packages", ", ".join(versions) + ("; as locked" if locked else "; no lock here"))


# -- devices


def devices() -> Point:
    """What jax computes on, beside what the machine has."""
    from wmjax.run import cli
    from wmjax.types import UsageError

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others may be using the GPU
    try:
        cli.use_jax()
        kinds = computing_devices()
    except UsageError as error:
        return Point("devices", str(error), "unset JAX_PLATFORMS")
    except Exception as error:  # whatever a driver may do
        return Point("devices", f"jax cannot compute: {short(error)}", "rm -f .venv/installed && make setup")
    return compared_devices(kinds, gpus(), tpu_chips(), os.environ)


def computing_devices() -> list[str]:
    """The kind of each of jax's devices, after a first computation."""
    import jax

    jax.block_until_ready(jax.numpy.ones(8).sum())
    return [device.device_kind for device in jax.devices()]


def gpus() -> list[tuple[str, str]]:
    """(name, version of the driver) of each GPU that nvidia-smi lists; [] where it is not there or fails."""
    return [(name, driver) for name, driver in nvidia_smi("name,driver_version")]


def nvidia_smi(query: str) -> list[list[str]]:
    """What nvidia-smi tells of each GPU, a text for each part of `query`; [] where it is not there or fails."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in answer.stdout.splitlines() if answer.returncode == 0]
    return [row for row in rows if len(row) == query.count(",") + 1]


def shared_card() -> Iterator[Point]:
    """What jax leaves of the first GPU's memory for drawing on the same card; nothing where there is no GPU."""
    for total, used in nvidia_smi("memory.total,memory.used")[:1]:
        if total.isdecimal() and used.isdecimal():  # MiB; "[N/A]" where a card does not report it
            yield jax_beside_egl(int(total) * 2**20 / 1e9, int(used) * 2**20 / 1e9, os.environ)


def jax_beside_egl(total: float, used: float, environment: Mapping[str, str]) -> Point:
    """Whether jax and EGL fit one card.

    Args: total, used: GB of the card, used by any process; environment: variables, among them those of XLA that set
      how much jax takes.
    """
    name, given = "XLA_PYTHON_CLIENT_MEM_FRACTION", environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
    try:
        share = float(given) if given else JAX_SHARE
    except ValueError:
        return Point("GPU memory", f"{name}={given} is no number", f"export {name}={JAX_SHARE}")
    preallocates = environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true").lower() not in ("false", "0")
    left = (1 - share) * total
    how_much = f"{share:.0%} of {total:.1f} GB"
    result = f"jax takes {f'{how_much} at once' if preallocates else f'up to {how_much}'}, "
    result += f"{name} is {given or 'not set'}; {left:.1f} GB are left for EGL; {used:.1f} GB in use now"
    if left >= FOR_DRAWING:
        return Point("GPU memory", result)
    fits = max(0.1, min(JAX_SHARE, int(100 * (1 - FOR_DRAWING / total)) / 100))
    return Point("GPU memory", f"{result}: drawing needs about {FOR_DRAWING:.0f} GB", f"export {name}={fits}")


def tpu_chips(buses: pathlib.Path = pathlib.Path("/sys/bus/pci/devices")) -> int:
    """Number of TPU chips on the PCI bus."""
    ids = [[(slot / name).read_text().strip() for name in ("vendor", "device")] for slot in buses.glob("*")]
    return sum(vendor == GOOGLE and chip in TPUS for vendor, chip in ids)


def compared_devices(
    kinds: list[str], nvidia: list[tuple[str, str]], tpus: int, environment: Mapping[str, str]
) -> Point:
    """Whether jax computes on the accelerators that the machine has.

    Args: kinds: of jax's devices; nvidia: as of `gpus`; tpus: number of chips; environment: variables.
    """
    jax_sees = f"jax computes on {len(kinds)} x {kinds[0]}"
    if kinds[0] != "cpu" or not (nvidia or tpus):
        return Point("devices", jax_sees + (f", driver {nvidia[0][1]}" if nvidia else ""))
    there = f"{len(nvidia)} x {nvidia[0][0]}, driver {nvidia[0][1]}" if nvidia else f"{tpus} TPU chips"
    result = f"the machine has {there}, but {jax_sees}"
    for name, hidden in (("JAX_PLATFORMS", ("cpu",)), ("CUDA_VISIBLE_DEVICES", ("", "-1"))):
        if environment.get(name) in hidden:
            return Point("devices", f"{result}: {name}={environment[name]}", f"unset {name}")
    if not nvidia:
        return Point("devices", result, f".venv/bin/python -m pip install 'jax[tpu]=={version('jax')}'")
    if int(nvidia[0][1].partition(".")[0]) < OLDEST_DRIVER:
        return Point("devices", f"{result}: too old for CUDA 12", f"sudo apt install nvidia-driver-{OLDEST_DRIVER}")
    return Point("devices", result, "rm -f .venv/installed && make setup ACCELERATOR=cuda12")


# -- drawing and playing, each tried in a child process, which it may abort


def drawing() -> Iterator[Point]:
    """A frame of envpool, one of dm_control, a game, a video."""
    from wmjax.envs import gl
    from wmjax.report import video

    frame = tried("EGL frame", gl.fault_of(gl.DRAW), f"sudo apt install {gl.DEBIAN}")
    yield frame
    pair = f"frame of dm_control {version('dm_control')} with mujoco {version('mujoco')}"
    if frame.mend:
        yield Point(pair, "not tried without EGL")
    else:
        yield tried(pair, gl.fault_of(DM_CONTROL), reinstall("mujoco<4", "dm_control"))
    yield tried("Atari game", gl.fault_of(GAME), reinstall(f"envpool=={version('envpool')}"))
    try:
        video.check_ffmpeg()
        yield Point("video", "ffmpeg encodes")
    except OSError as error:
        yield tried("video", str(error), reinstall("imageio-ffmpeg"))


def tried(name: str, fault: str, mend: str) -> Point:
    """The Point of something that was tried. fault: its error, "" if there was none."""
    return Point(name, short(fault), mend) if fault else Point(name, "made")


def reinstall(*names: str) -> str:
    """The line that installs packages anew."""
    quoted = " ".join(f"'{name}'" if set(name) & set("<>") else name for name in names)
    return f"{sys.executable} -m pip install --force-reinstall --no-deps {quoted}"


def short(message: Any) -> str:
    """A message as one line of at most SHOWN characters."""
    line = " ".join(str(message).split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


# -- room for runs


def room(workdir: str | None, needs: Needs = Needs()) -> Iterator[Point]:  # noqa: B008  it is a tuple
    """The Points of memory and disk. Args: workdir: where runs are to be, None: the present folder; needs: of a run."""
    from wmjax import memory

    folder = pathlib.Path(workdir or ".").absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        memory_left = memory.free_memory()
    except (RuntimeError, AssertionError):  # no device, which the Point of `devices` reports
        memory_left = memory.host_memory()
    yield enough("memory", memory_left, needs.memory, needs.smaller)
    free = shutil.disk_usage(folder).free
    yield enough(f"disk of {folder}", free, needs.disk, f"--workdir=DIR, on a disk with {needs.disk / 1e9:.1f} GB free")


def enough(name: str, free: int | None, need: int, mend: str) -> Point:
    """Whether `need` of `free` bytes are there; free: None where that is not known."""
    there = "unknown" if free is None else f"{free / 1e9:.1f} GB free"
    result = f"{there}, the run takes {need / 1e9:.1f} GB" if need else there
    return Point(name, result, mend if free is not None and need > free else "")


# -- time


def load() -> str:
    """The machine's load before the measurement, in words."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores before it"


def seconds_of(step: Callable[[], Any], seconds: float) -> float:
    """Mean seconds of a call of step(), over as many calls as fit into `seconds`."""
    started, calls, gone = time.monotonic(), 0, 0.0
    while gone < seconds:
        step()
        calls, gone = calls + 1, time.monotonic() - started
    return gone / calls


if __name__ == "__main__":
    if None in map(version, PACKAGES):
        tell(installation())
    from wmjax.run import cli

    sys.exit(cli.run(main, sys.argv))
