"""Makes MuJoCo's off-screen rendering inside envpool usable, and tries it in a child process first.

The envpool wheel carries its own libEGL, libOpenGL and libGLdispatch under hashed names and loads them privately,
while MuJoCo's loader looks among the process's global symbols. Unless they are loaded globally, the first frame
aborts the process. A missing EGL driver aborts it as well: no exception could be caught. So one frame is drawn in a
child process first; a success is remembered for this process and, in a small file in the user's cache, for later
ones on this machine with the same envpool, EGL drivers and EGL variables.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

from wmjax.envs import cache
from wmjax.types import UsageError

PROBE_SECONDS = 120  # a cold import of envpool from a slow disk, with much to spare
DONE = "came to its end"  # printed last by a program that did
DEBIAN = "libegl1 libopengl0 libgl1-mesa-dri"  # packages that draw in software

DRAW = """
from wmjax.envs import gl
options = dict(render_mode="rgb_array", render_width=16, render_height=16, render_camera_id=0)
pool = gl.import_envpool().make_dm("CartpoleBalance-v1", num_envs=1, **options)
pool.reset()
pool.render(env_ids=[0])
"""


@functools.cache
def import_envpool() -> Any:
    """Returns the module envpool, its GL libraries loaded before it: the only way to import it, for Atari too.

    After envpool and then mujoco (by dm_control, say) the libraries come too late: the first frame ends the process.
    """
    load_libraries()
    import envpool

    return envpool


def load_libraries() -> None:
    """Loads envpool's own GL libraries into the global namespace, in the order they depend on each other."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    package = importlib.util.find_spec("envpool")
    if package is None or not package.submodule_search_locations:
        raise UsageError("these environments need the package envpool: pip install envpool.")
    folder = pathlib.Path(package.submodule_search_locations[0]).parent / "envpool.libs"
    for name in ("libGLdispatch", "libOpenGL", "libEGL"):
        for path in sorted(folder.glob(f"{name}*")):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


@functools.cache
def require_rendering() -> None:
    """Loads the GL libraries and draws one frame in a child process, unless a marker says that this works here.

    Raises:
        UsageError: the frame could not be drawn; names the system packages that are needed.
    """
    load_libraries()
    marker = _marker()
    if marker.exists():
        return
    fault = fault_of(DRAW)
    if fault:
        raise UsageError(
            f"off-screen rendering (EGL) does not work on this machine: install the Debian packages {DEBIAN}, or an "
            f"NVIDIA driver with EGL. The renderer said: {fault}"
        )
    with contextlib.suppress(OSError):
        marker.touch()  # without it the next process draws its frame too


def draw_without_threads() -> None:
    """Lets software draw in the thread that asks, from the first frame on, unless LP_NUM_THREADS says otherwise.

    Where other work keeps all cores busy, the threads of Mesa's software renderer wait for one at every frame.
    """
    os.environ.setdefault("LP_NUM_THREADS", "0")


def fault_of(program: str) -> str:
    """Runs a Python program in a child process, since what draws may abort its process.

    Returns:
        "" if it came to its end, whatever its exit code; else the last line that it printed.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-c", f"{program}\nprint({DONE!r})"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer after {PROBE_SECONDS} s"
    printed = (child.stdout + child.stderr).strip().splitlines() or [f"exit code {child.returncode}"]
    return "" if DONE in child.stdout else printed[-1]


def _marker() -> pathlib.Path:
    """Returns the file whose existence says that drawing works, named after everything that could change that."""
    vendors = [
        str(path)
        for folder in ("/usr/share/glvnd/egl_vendor.d", "/etc/glvnd/egl_vendor.d")
        for path in sorted(pathlib.Path(folder).glob("*.json"))
    ]
    prefixes = ("__EGL", "MUJOCO_", "LIBGL_", "MESA_", "GALLIUM_", "NVIDIA_", "CUDA_VISIBLE", "LD_LIBRARY_PATH")
    variables = sorted(f"{key}={value}" for key, value in os.environ.items() if key.startswith(prefixes))
    here = [platform.node(), sys.prefix]  # machines may share the user's cache
    parts = [importlib.metadata.version("envpool"), *here, *vendors, *variables]
    return cache.folder() / f"egl-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
