"""Processor seconds of test files, each in a process of its own with an empty compile cache.

    python -m tests.measure tests/ops tests/test_replay.py

Folders are searched for test files. Processes that a test starts count too, also those that outlive it.
"""

import ctypes
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

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


def main():
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    print("| file | processor seconds | pytest said |\n|---|---|---|")
    for path in files(sys.argv[1:]):
        seconds, said = measure(path)
        print(f"| {path} | {seconds:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
