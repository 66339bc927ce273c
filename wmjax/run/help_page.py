"""The page of --help: what a main does, its flags, and every setting with its value, type and source.

The sources are the comments that stand behind the settings in the files that define them.
"""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeGuard


def page(about: str, flags: Iterable[tuple[str, Any, str, str]], configs: ModuleType | None) -> str:
    """The page as text.

    Args:
      about: the main's docstring.
      flags: (name, default, help, what its values look like) of each.
      configs: the main's module config.py, or None. Of it are used PRESETS (functions by name, the paper's first),
        BLOCKS (the dataclass of each block of a config), get_config and EXAMPLE, what stands before the preset in its
        argument.
    """
    lines = [about.strip(), "", "Flags:", ""]
    for name, default, text, kind in flags:
        lines.append(f"  --{name}" + ("" if default is None else f"={written(default)}"))
        lines.append(f"      {' '.join(text.split())}" + (f" ({kind})" if kind else ""))
    return "\n".join(lines + (setting_lines(configs) if configs else []))


def setting_lines(configs: ModuleType) -> list[str]:
    """The lines about all settings, block by block."""
    first = next(iter(configs.PRESETS))
    values = {name: configs.get_config(f"{configs.EXAMPLE},{name}") for name in configs.PRESETS}
    comments, top = call_comments(configs.PRESETS[first]), values[first]
    lines = ["", "Presets:", ""]
    for name, preset in configs.PRESETS.items():
        lines += wrapped(f"{name}: {inspect.getdoc(preset)}")
    lines += ["", f"Settings of {configs.EXAMPLE},{first}, and in brackets where another preset differs:", ""]
    loose = [key for key in top if key not in configs.BLOCKS]
    names = [key for key in loose if not hasattr(top[key], "keys")]
    names += [f"{key}.{inner}" for key in loose if key not in names for inner in top[key]]
    for name in names:
        kind = holder(top, name).get_type(name.rpartition(".")[2]).__name__
        lines.append(setting_line(name, kind, values, comments.get(name, "")))
    for key, cls in configs.BLOCKS.items():
        lines += ["", *wrapped(f"{key}: {inspect.getdoc(cls)}")]
        comments = field_comments(cls)
        for field in dataclasses.fields(cls):
            kind = getattr(field.type, "__name__", str(field.type))
            kind = str(field.type) if kind == "tuple" else kind
            lines.append(setting_line(f"{key}.{field.name}", kind, values, comments.get(field.name, "")))
    return lines


def setting_line(name: str, kind: str, values: Mapping[str, Any], comment: str) -> str:
    """`config.train.batch = 50 (int; cpu: 16)  B`. values: the config of each preset, the first one's first."""
    (_, first), *others = [(preset, holder(config, name)[name.rpartition(".")[2]]) for preset, config in values.items()]
    unlike = "".join(f"; {preset}: {value!r}" for preset, value in others if value != first)
    return f"  config.{name} = {first!r} ({kind}{unlike})" + (f"  {comment}" if comment else "")


def wrapped(text: str) -> list[str]:
    """Lines of a paragraph."""
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="      ")


def holder(config: Any, name: str) -> Any:
    """The block of a ConfigDict that holds the last part of the dotted `name`."""
    for key in name.split(".")[:-1]:
        config = config[key]
    return config


def written(value: Any) -> Any:
    """A flag's default as one writes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def line_comments(source: str) -> dict[int, str]:
    """{number of a line, from 1: the comment at its end}."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def field_comments(cls: type) -> dict[str, str]:
    """{field of a dataclass: the comment on its line}, of those that have one."""
    source = textwrap.dedent(inspect.getsource(cls))
    comments = line_comments(source)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign)]
    fields = {ast.unparse(node.target): node.end_lineno for node in nodes}
    return {name: comments[line] for name, line in fields.items() if line in comments}


def call_comments(function: Callable) -> dict[str, str]:
    """{"seed": its comment, "env.size": its comment} of the nested dict(seed=0, env=dict(size=64)) in a function."""
    source = textwrap.dedent(inspect.getsource(function))
    comments, found = line_comments(source), {}

    def collect(call: ast.Call, prefix: str) -> None:
        for keyword in call.keywords:
            if is_dict_call(keyword.value):
                collect(keyword.value, f"{prefix}{keyword.arg}.")
            elif keyword.value.end_lineno in comments:
                found[f"{prefix}{keyword.arg}"] = comments[keyword.value.end_lineno]

    outermost = next((node for node in ast.walk(ast.parse(source)) if is_dict_call(node)), None)
    if outermost is not None:
        collect(outermost, "")
    return found


def is_dict_call(node: ast.AST) -> TypeGuard[ast.Call]:
    """Whether an expression is dict(...)."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict"
