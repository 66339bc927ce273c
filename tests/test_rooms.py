"""The rooms of the library: left never imports right, siblings never import each other.

types, checks, backend < nets, ops < imagine < models/*, planners < agents/* < train < run
types, console, memory, backend < envs, replay, storage < report < run < doctor < experiments/* < launch
(of siblings report alone sees another: it reads what storage holds)
"""

import ast
import pathlib
import re
import sys
import tomllib
from importlib import metadata

import pytest

ROOT = pathlib.Path(__file__).parent.parent

BASE = {"types", "checks", "console", "memory", "backend"}
CORE = BASE | {"nets", "ops", "imagine"}
AGENTS = CORE | {"models", "planners", "agents"}
SHELL = {"envs", "replay", "storage", "report"}
MAY_IMPORT = {
    "types": set(),
    "checks": {"types"},
    "console": set(),
    "memory": {"types"},
    "backend": set(),
    "nets": {"types", "backend"},
    "ops": {"types", "backend"},
    "imagine": {"types", "nets", "ops"},
    "models": CORE,
    "planners": CORE,
    "agents": CORE | {"models", "planners"},
    "train": AGENTS,
    "envs": BASE,
    "replay": BASE,
    "storage": BASE,
    "report": BASE | {"storage"},
    "run": AGENTS | SHELL | {"train"},
    "doctor": BASE | SHELL | {"run"},
    "experiments": AGENTS | SHELL | {"train", "run", "doctor"},
    "launch": AGENTS | SHELL | {"train", "run", "doctor", "experiments"},
}
FAMILIES = ("models", "agents", "experiments")  # rooms whose folders do not see each other
SHARED = ("presets", "published", "runs", "training")  # files beside the folders that all of them see
# The study is runs of PlaNet's loop with other models; agents ask the models that another experiment trained.
BUILT_ON = {"trade_offs": "planet", "i2a": "environment_models"}
SHELL_PACKAGES = ("experiments", "launch", "ml_collections", "absl", "tests")


def rooms():
    """(path relative to the root, room, family or None) of every source file."""
    files = [path for top in ("wmjax", "experiments", "launch") for path in sorted((ROOT / top).rglob("*.py"))]
    for path in (file.relative_to(ROOT) for file in files):
        inside = path.parts[1:] if path.parts[0] == "wmjax" else path.parts
        room = inside[0].removesuffix(".py")
        if room != "__init__":
            yield path, room, inside[1] if room in FAMILIES and len(inside) > 2 else None


def imported(tree):
    """(dotted name, line) of everything that a module imports, at any depth of nesting."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def faults(path, room, family, source):
    """Lines that say which import of this source breaks which rule."""
    for name, line in imported(ast.parse(source)):
        parts = name.split(".")
        where = f"{path}:{line} imports {name}"
        if parts[0] == "wmjax" and len(parts) > 1:
            target, rest = parts[1], parts[2:]
        elif parts[0] in ("experiments", "launch"):
            target, rest = parts[0], parts[1:]
        else:
            if path.parts[0] == "wmjax" and parts[0] in SHELL_PACKAGES and (str(path), name) != ABSL_DOOR:
                yield f"{where}: that belongs to the mains"
            continue
        if target != room and target not in MAY_IMPORT[room]:
            yield f"{where}: {room} must not see {target}"
        if (
            target == room
            and room in FAMILIES
            and rest
            and family
            and rest[0] not in (family, BUILT_ON.get(family), *SHARED)
        ):
            yield f"{where}: {room}/{family} must not see {room}/{rest[0]}"


OPTIONAL = {"rivals.py": "bench", "ray.py": "ray", "slurm.py": "slurm"}  # files that import what an extra installs
RIVALS = ("rivals.py", "authors.py")  # import what the user installs to measure it
ABSL_DOOR = ("wmjax/run/cli.py", "absl.flags")


@pytest.mark.parametrize(("path", "room", "family"), rooms(), ids=lambda value: str(value))
def test_imports_stay_in_their_room(path, room, family):
    assert not list(faults(path, room, family, (ROOT / path).read_text()))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("wmjax/ops/a.py", "from wmjax import imagine"),
        ("wmjax/ops/a.py", "from wmjax.nets.mlp import MLP"),
        ("wmjax/nets/a.py", "import wmjax.ops.gaussian"),
        ("wmjax/imagine.py", "from wmjax.models import rssm"),
        ("wmjax/models/rssm/a.py", "def f():\n    from wmjax.models.video import make"),
        ("wmjax/models/rssm/a.py", "from wmjax.models import video"),
        ("wmjax/models/rssm/a.py", "from wmjax.planners import cem"),
        ("wmjax/planners/a.py", "from wmjax.models import rssm"),
        ("wmjax/agents/mpc/a.py", "from wmjax.agents.ppo import actor"),
        ("wmjax/agents/mpc/a.py", "from wmjax.run import collect"),
        ("wmjax/envs/a.py", "from wmjax import replay"),
        ("wmjax/replay.py", "from wmjax.ops import actions"),
        ("wmjax/run/a.py", "import experiments.planet"),
        ("wmjax/run/a.py", "import ml_collections"),
        ("wmjax/run/a.py", "from absl import flags"),
        ("wmjax/run/cli.py", "from absl import logging"),
        ("experiments/planet/a.py", "from experiments.swm import parts"),
        ("experiments/planet/a.py", "from launch import sweep"),
    ],
)
def test_forbidden_imports_are_found(path, source):
    path = pathlib.Path(path)
    inside = path.parts[1:] if path.parts[0] == "wmjax" else path.parts
    room = inside[0].removesuffix(".py")
    family = inside[1] if room in FAMILIES else None
    assert len(list(faults(path, room, family, source))) == 1


def test_every_room_is_known():
    assert {room for _, room, _ in rooms()} <= MAY_IMPORT.keys()


def test_packages_are_imported_if_and_only_if_they_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = project["optional-dependencies"] | {None: project["dependencies"]}
    named = {extra: {canonical(re.split(r"[^\w-]", each)[0]) for each in own} for extra, own in lists.items()}
    declared = named[None]
    owners, used = metadata.packages_distributions(), set()
    for path, _, _ in rooms():
        names = {name.partition(".")[0] for name, _ in imported(ast.parse((ROOT / path).read_text()))}
        for name in names - sys.stdlib_module_names - {"wmjax", "experiments", "launch"}:
            found = {canonical(owner) for owner in owners.get(name, [name])}  # not installed: by its own name
            allowed = declared | named.get(OPTIONAL.get(path.name), set())
            assert found & allowed or path.name in RIVALS, f"{path} imports {name}, which is not declared"
            used |= found
    assert not declared - used
    twice = {name for extra in OPTIONAL.values() for name in declared & named[extra]}
    assert twice <= {"gymnasium"}  # there with an extra of its own


def canonical(name):
    """A distribution's name as indices compare it."""
    return re.sub("[-_.]+", "-", name).lower()
