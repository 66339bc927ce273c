"""A sweep of the stub main, in processes of its own, and how often each of its cells was started."""

import subprocess
import sys
import time

from tests.mains import ROOT

MAIN = ("--main=tests.launch.stub", "--config=tests/launch/stub/config.py:fake:counter,cpu")


def drive(folder, *words):
    """A driver in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "launch.sweep", f"--folder={folder}", *words], cwd=ROOT)


def starts(folder):
    """{cell: how often it was started}."""
    return {path.stem: len(path.read_text().splitlines()) for path in sorted(folder.glob("*.starts"))}


def wait_for(found, seconds=60):
    until = time.monotonic() + seconds
    while not found() and time.monotonic() < until:
        time.sleep(0.02)
    assert found()
