"""Processor seconds of test files, each in a process of its own with an empty compile cache; or of single tests.

    python -m tests.measure tests/ops tests/test_replay.py
    python -m pytest -n 0 -p tests.measure tests/ops

Folders are searched for test files. Processes that a test starts count too: of a file those that outlive it as well.
A test's seconds hold those of fixtures that it was the first to need.
"""

import ctypes
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import pytest

SUBREAPER = 36  # prctl: what a child leaves behind becomes a child of this process, and its seconds count here


def files(places):
    """The test files at these places, in order."""
    for place in map(pathlib.Path, places):
        yield from sorted(place.rglob("test_*.py")) if place.is_dir() else [place]


def spent():
    """Seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(path):
    """-> (seconds, pytest's closing line)."""
    before = spent()
    with tempfile.TemporaryDirectory() as cache:
        words = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(path)]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return spent() - before, ended.stdout.strip().splitlines()[-1]


def spent_by_all(root):
    """Seconds so far of the process `root`, of all that descend from it now, and of their children that have ended."""
    children, seconds = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # after the name, from the state on
        except OSError:  # it has ended meanwhile
            continue
        process = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(process)
        seconds[process] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    found = [root]
    for process in found:
        found += children.get(process, [])
    return sum(seconds.get(process, 0) for process in found)


tests = []  # (seconds, name) of those that have run, where this file is a plugin of pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    before = spent_by_all(os.getpid())
    found = yield
    tests.append((spent_by_all(os.getpid()) - before, item.nodeid))
    return found


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("| test | processor seconds |\n|---|---|")
    for seconds, name in sorted(tests, reverse=True)[:40]:
        terminalreporter.write_line(f"| {name} | {seconds:.1f} |")


def main():
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    print("| file | processor seconds | pytest said |\n|---|---|---|")
    for path in files(sys.argv[1:]):
        seconds, said = measure(path)
        print(f"| {path} | {seconds:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
