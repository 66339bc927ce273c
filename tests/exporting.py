"""Programs for accelerators that are not there: whatever a main compiles is lowered for them too, from the CPU.

Lowering shows that no operation lacks a form for the platform. It does not show that the program runs there, how fast,
or in what memory.
"""

import ast
import functools
import json
import pathlib
import sys

import jax
import jax.export

from wmjax import backend

ROOT = pathlib.Path(__file__).parent.parent
PLATFORMS = ("cuda", "tpu")
REAL = jax.jit


def export(function, *args, **settings):
    """Lowers `function`, jitted with settings, for PLATFORMS; raises whatever keeps it from that.

    args: arrays, or their shapes. Call it inside `backend.as_on("gpu")`.
    """
    jitted = REAL(lambda *args: function(*args), **settings)  # a function that no trace for the CPU is kept of
    return jax.export.export(jitted, platforms=PLATFORMS)(*args)


def watch():
    """From here on `jax.jit` keeps what is called with what; returns {(site, shapes): arguments of `export`}."""
    seen = []

    def jit(function=None, **settings):
        if function is None:
            return functools.partial(jit, **settings)
        caller = sys._getframe(1)
        site = pathlib.Path(caller.f_code.co_filename), caller.f_lineno
        compiled, calls = REAL(function, **settings), []
        if not site[0].is_relative_to(ROOT):
            return compiled

        @functools.wraps(function)
        def called(*args):
            if not calls and not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
                calls.append(None)
                place = f"{site[0].relative_to(ROOT)}:{site[1]}"
                seen.append((place, function, jax.tree.map(_shape, args), settings))
            return compiled(*args)

        return called

    jax.jit = jit
    return seen


def write_exports(path, seen):
    """Exports what `watch` has seen. Writes {site: what went wrong, or ""}."""
    found = {}
    with backend.as_on("gpu"):
        for site, function, shapes, settings in seen:
            try:
                export(function, *shapes, **settings)
                fault = ""
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            found[site] = found.get(site) or fault
    path.write_text(json.dumps(found))


def sites(*patterns):
    """{"file:line"} of every `jax.jit` in files of the repository."""
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {f"{path.relative_to(ROOT)}:{line}" for path in paths for line in _lines(ast.parse(path.read_text()))}


def _lines(tree):
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.jit"]
    return [node.lineno for node in nodes]


def _shape(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x
