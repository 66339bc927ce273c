"""What `pip install .` leaves, and README's library snippet in it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import wmjax

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's files in a folder, as an installer unpacks them; built from a copy of the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("wmjax", "experiments", "launch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(built / "site")
    return built / "site"


def test_only_the_library_is_installed(installed):
    names = {path.name for path in installed.iterdir()}
    assert names == {"wmjax", f"wmjax-{wmjax.__version__}.dist-info"}
    assert len(list(installed.rglob("*.py"))) == len(list((ROOT / "wmjax").rglob("*.py")))


def test_the_readmes_snippet_runs_in_an_empty_folder(installed, tmp_path):
    readme = (ROOT / "README.md").read_text()
    snippet = re.search(r"^## The library\n\n((?:    .*\n|\n)+)", readme, re.MULTILINE)[1]
    program = "\n".join(line[4:] for line in snippet.splitlines())
    program = re.sub(r"iterations=\d+, candidates=\d+, elites=\d+", "iterations=2, candidates=8, elites=2", program)
    program += "\nimport wmjax\nprint(plan.action.shape, plan.mean.shape, wmjax.__file__)"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"(4, 6) (4, 12, 6) {installed / 'wmjax' / '__init__.py'}"
