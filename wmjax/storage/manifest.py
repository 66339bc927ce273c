"""A pytree as a list of named leaves and back: what `checkpoint` writes into its manifest. And its digest.

A leaf is an array (kept by name for the array store), a PRNG key (its uint32 data likewise) or a plain value, which the
description itself holds, so that an int comes back as an int and a 128-bit one too:

    {"path": ["learner", "params", "w"], "kind": "array", "dtype": "float32", "shape": [3],
     "name": "0007_learner_params_w"}
    {"path": ["episodes"], "kind": "int", "value": 12}
"""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class AsSaved:
    """Type of AS_SAVED."""


AS_SAVED = AsSaved()  # in a template: "whatever was saved here", as dicts, lists, values and numpy arrays of any shape
PLAIN = (int, float, bool, str, dict, list, tuple)  # containers only if empty: `describe` sees leaves


def split(state: Any) -> tuple[dict[str, Any], list[dict]]:
    """Pytree -> (arrays by name, one description for each leaf).

    Raises:
        TypeError: a leaf is no array, key or plain value; the message has its path.
    """
    arrays, leaves = {}, []
    for number, (path, leaf) in enumerate(_flatten(state)):
        try:
            entry = {"path": path} | describe(leaf)
        except TypeError as error:
            raise TypeError(f"{dotted(path)}: {error}") from error
        if entry["kind"] == "key":
            entry["impl"] = str(jax.random.key_impl(leaf))
        if entry["kind"] not in ("array", "key"):
            entry["value"] = leaf
        elif leaf.size:  # the store refuses arrays without elements; the description is all there is to them
            entry["name"] = f"{number:04d}_" + re.sub(r"[^A-Za-z0-9]+", "_", dotted(path))
            arrays[entry["name"]] = np.asarray(jax.random.key_data(leaf)) if entry["kind"] == "key" else leaf
        leaves.append(entry)
    return arrays, leaves


def difference(leaves: list[dict], template: Any) -> str:
    """The first leaf in which the saved state and the template differ, in words; "" if they fit."""
    saved = {tuple(entry["path"]): entry for entry in leaves}
    for path, leaf in _flatten(template):
        if leaf is AS_SAVED:
            saved = {other: entry for other, entry in saved.items() if list(other[: len(path)]) != path}
            continue
        entry = saved.pop(tuple(path), None)
        if entry is None:
            return f"it lacks {dotted(path)}"
        here, there = describe(leaf), {name: entry[name] for name in ("kind", "dtype", "shape") if name in entry}
        if here != there:
            return f"{dotted(path)} is {_in_words(there)} there and {_in_words(here)} here"
    return f"it holds {dotted(next(iter(saved)))}, which this run does not have" if saved else ""


def join(leaves: list[dict], read: dict[str, np.ndarray], template: Any) -> Any:
    """Descriptions and arrays -> a pytree of the template's form. Call it when `difference` found none."""
    saved = {tuple(entry["path"]): entry for entry in leaves}
    values = []
    for path, leaf in _flatten(template):
        if leaf is AS_SAVED:
            below = [entry for other, entry in saved.items() if list(other[: len(path)]) == path]
            values.append(_rebuild(below, len(path), read))
        else:
            values.append(_place(_value(saved[tuple(path)], read), leaf))
    return jax.tree.unflatten(jax.tree.structure(template, is_leaf=_is_leaf), values)


def describe(leaf: Any) -> dict:
    """{"kind": "array" | "key", "dtype", "shape"}, or {"kind": the type of a plain value}."""
    if hasattr(leaf, "dtype") and hasattr(leaf, "shape") and leaf.dtype != object:
        key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return {"kind": "key" if key else "array", "dtype": str(leaf.dtype), "shape": list(leaf.shape)}
    if leaf is None or type(leaf) in PLAIN:
        return {"kind": type(leaf).__name__}
    raise TypeError(f"a checkpoint cannot hold a {type(leaf).__name__}")


def digest(tree: Any) -> str:
    """sha256, in hexadecimal, of the arrays of a pytree in order: equal ones have the same."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def dotted(path: list | tuple) -> str:
    """["params", 0, "w"] -> "params.0.w"."""
    return ".".join(str(part) for part in path)


def _in_words(description: dict) -> str:
    return f"{description['dtype']}{description['shape']}" if "shape" in description else description["kind"]


def _is_leaf(value: Any) -> bool:
    """None and empty containers count as values, so that AS_SAVED brings them back too."""
    return value is None or (type(value) in (dict, list, tuple) and not value)


def _flatten(tree: Any) -> list[tuple[list, Any]]:
    """[(path, leaf)]; a path is a list of dict keys, field names and positions."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_leaf)
    return [([getattr(k, "key", getattr(k, "name", getattr(k, "idx", None))) for k in path], x) for path, x in flat]


def _value(entry: dict, read: dict[str, np.ndarray]) -> Any:
    """The value of one description: a numpy array, a typed key, or a plain value."""
    if entry["kind"] not in ("array", "key"):
        return tuple(entry["value"]) if entry["kind"] == "tuple" else entry["value"]
    if entry["kind"] == "key":
        return jax.random.wrap_key_data(jnp.array(read[entry["name"]]), impl=entry["impl"])
    if "name" not in entry:
        return np.zeros(entry["shape"], jnp.dtype(entry["dtype"]))
    return np.asarray(read[entry["name"]])


def _place(value: Any, leaf: Any) -> Any:
    """A restored value as the same kind of thing, in the same place, as the template's leaf."""
    if isinstance(leaf, np.generic):
        return value[()]
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return value
    if getattr(leaf, "committed", True) and leaf.sharding is not None:
        if not isinstance(value, jax.Array):
            return _placed(value, leaf.sharding)
        keys = _placed(np.asarray(jax.random.key_data(value)), leaf.sharding)
        return jax.random.wrap_key_data(keys, impl=jax.random.key_impl(value))
    return jnp.array(value)  # stays free to go where a computation needs it, as the template's leaf does


def _placed(array: np.ndarray, sharding: Any) -> jax.Array:
    """On the devices of a sharding, which may be those of several processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _rebuild(entries: list[dict], depth: int, read: dict[str, np.ndarray]) -> Any:
    """The part of the state below `depth` as nested dicts (keys and field names) and lists (positions)."""
    if len(entries) == 1 and len(entries[0]["path"]) == depth:
        return _value(entries[0], read)
    groups: dict[Any, list[dict]] = {}
    for entry in entries:
        groups.setdefault(entry["path"][depth], []).append(entry)
    built = {part: _rebuild(group, depth + 1, read) for part, group in groups.items()}
    positions = bool(built) and all(isinstance(part, int) for part in built)
    return list(built.values()) if positions else built
