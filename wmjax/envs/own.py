"""A user's own environments by name: "gym:CarRacing-v3" and "py:my_package.module:make_env".

    gym   an id of gymnasium's registry, "gym:my_module:MyEnv-v0" to import what registers it first; drawn by
          render_mode="rgb_array" where its observation is no image
    py    a function (seed) -> gymnasium or dm_env environment, in a module that Python finds from the current folder;
          or (seed) -> JaxEnv, called once with seed 0, whose image and actions are taken as they are

What is asked of them, and how they are restored: `wmjax/envs/adapter.py`. Options of `make("gym:...", num_envs, seed,
...)` and `make("py:...", ...)`:

    size            height and width of the square image that is made of theirs, 8 to 256 (64)
    action_repeat   environment steps a decision, 1 to 100 (1)
    episode_steps   time limit in environment steps. None: the environment's own
    grey            one channel of three (False)
    image_key       of the image, where observations are dicts (pixels)
    stack           newest images in the channels of one, oldest first, 1 to 16 (1), as of `wmjax/envs/atari.py`
    vector_keys     names of numbers in a dict of observations, which are shown beside the image as "vector" (none)
    workers         processes that the rows are stepped in, 1 to 64, at most one a row. 1: in this one (1)
    seconds         that a worker may take for a reset or a decision of its rows, or else it failed. 0: any (0)
    failures        of workers that these rows go on after, see `wmjax/envs/workers.py` (0)

With `seconds` or `failures` one worker is a process of its own too.
"""

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from wmjax.envs.adapter import AdaptedVecEnv
from wmjax.envs.check import check_int, check_name, check_options, nearest
from wmjax.envs.jax_env import JaxVecEnv, check_env
from wmjax.envs.views import View
from wmjax.envs.workers import WorkersVecEnv
from wmjax.types import JaxEnv, UsageError

OUTSIDE = ("workers", "seconds", "failures")  # options that are no worker's own


class OwnOptions(NamedTuple):
    """See the module's text."""

    size: int = 64
    action_repeat: int | None = 1
    episode_steps: int | None = None
    grey: bool = False
    image_key: str = "pixels"
    stack: int = 1
    vector_keys: tuple[str, ...] = ()
    workers: int = 1
    seconds: float = 0.0
    failures: int = 0


def make_gym(env_id: str, seeds: list[int], options: dict[str, Any]) -> AdaptedVecEnv | WorkersVecEnv:
    """Makes environments of gymnasium's registry.

    Raises:
        UsageError: unknown id or option, a package that the environment needs, or one that is not as asked.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise UsageError("gym environments need gymnasium: pip install gymnasium.") from error
    module, colon, name = env_id.rpartition(":")
    if colon:
        _import(module)
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        near = nearest(name, list(gymnasium.registry))
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"unknown gymnasium id {name!r}.{hint} {' '.join(str(error).split())}") from error
    return _in_workers(make_gym, env_id, seeds, options) or _adapt(
        functools.partial(_make_gym, name), seeds, "gym", options
    )


def make_py(name: str, seeds: list[int], options: dict[str, Any]) -> AdaptedVecEnv | JaxVecEnv | WorkersVecEnv:
    """Makes environments by a function of the user's own, "module:function".

    Raises:
        UsageError: no such module or function, unknown option, or environments that are not as asked.
    """
    env = make_env(name, options)
    if env is not None:
        return JaxVecEnv(env, seeds, ("py", name, env.spec))
    return _in_workers(make_py, name, seeds, options) or _adapt(_function(name), seeds, "py", options)


def make_env(name: str, options: dict[str, Any]) -> JaxEnv | None:
    """The JaxEnv that a function of the user's own makes, or None where it makes another environment.

    Raises:
        UsageError: no such module or function, unknown option, one that would change the JaxEnv, or one that is not as
            its spec says.
    """
    made = _function(name)(0)
    if not isinstance(made, JaxEnv):
        getattr(made, "close", lambda: None)()
        return None
    check_options("py", options, OwnOptions)
    check_env(f"py:{name}", made)
    as_it_is = OwnOptions(size=made.spec.obs_shape[0], episode_steps=made.spec.time_limit)
    for option, value in options.items():
        fixed = getattr(as_it_is, option)
        if value not in (None, fixed):
            raise UsageError(f"{option}={value!r} is not allowed of py:{name}, a JaxEnv, which is as it is: {fixed!r}.")
    return made


def _function(name: str) -> Callable[[int], Any]:
    """The function of "module:function"."""
    module_name, colon, function = name.rpartition(":")
    if not colon or not module_name or not function:
        raise UsageError(f"py:{name}: give py:my_package.module:function, a function (seed) -> environment.")
    module = _import(module_name)
    callables = [
        attribute for attribute in dir(module) if callable(getattr(module, attribute)) and not attribute.startswith("_")
    ]
    check_name(f"function of {module_name}", function, callables)
    found = getattr(module, function)
    try:
        inspect.signature(found).bind(0)
    except TypeError as error:
        raise UsageError(f"py:{name}: must take a seed, as {function}(seed) -> environment: {error}.") from error
    except ValueError:  # of C functions, whose arguments nobody tells
        pass
    return found


def _in_workers(make: Callable[..., Any], name: str, seeds: list[int], options: dict[str, Any]) -> WorkersVecEnv | None:
    """The pool of options["workers"] processes, each of which calls make(name, seeds, options); None if none is due."""
    inside = {option: OwnOptions._field_defaults[option] for option in OUTSIDE}  # a worker
    workers, seconds, failures = (options.get(option, default) for option, default in inside.items())
    check_int("workers", workers, low=1, high=64)
    check_int("failures", failures, low=0, high=10**6)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 86_400:
        raise UsageError(f"seconds={seconds!r} is not allowed: expected a number in [0, 86400], 0 for no limit.")
    if min(workers, len(seeds)) == 1 and not seconds and not failures:
        return None
    return WorkersVecEnv(make, name, seeds, options | inside, workers, seconds=seconds, failures=failures)


def _adapt(make_env: Callable[[int], Any], seeds: list[int], family: str, options: dict[str, Any]) -> AdaptedVecEnv:
    chosen = check_options(family, options, OwnOptions)._asdict()
    view = {name: value for name, value in chosen.items() if name not in OUTSIDE}
    return AdaptedVecEnv(make_env, seeds, View(**view | dict(action_repeat=chosen["action_repeat"] or 1)))


def _make_gym(name: str, seed: int) -> Any:
    """One environment; it is seeded at its resets."""
    import gymnasium

    try:
        return gymnasium.make(name, render_mode="rgb_array")
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"gym:{name} needs another package: {' '.join(str(error).split())}") from error
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UsageError(f"gym:{name} cannot be made: {' '.join(str(error).split())}") from error


def _import(name: str) -> Any:
    """A module that is found from the current folder too."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name}: {error}; modules are looked for in {os.getcwd()} and among Python's own.") from error
