"""Signals that end a run: the first one asks, the second one ends it at once, afterwards all is as it was before."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from wmjax.run import cli, stop


@pytest.fixture(autouse=True)
def as_before():
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    handlers = [signal.getsignal(each) for each in stop.SIGNALS]
    yield
    stop.forget()
    assert [signal.getsignal(each) for each in stop.SIGNALS] == handlers
    signal.signal(signal.SIGINT, ours)


def send(number):
    os.kill(os.getpid(), number)
    until = time.monotonic() + 30
    while not stop.asked() and time.monotonic() < until:
        time.sleep(0.001)


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_the_first_signal_asks_and_a_main_ends_with_75(number, capfd):
    def main(argv):
        stop.listen()
        stop.check()  # nothing asked yet
        send(number)
        stop.check()
        pytest.fail("went on")

    assert cli.run(main, ["main"]) == 75
    first, last = capfd.readouterr().err.splitlines()
    assert first.startswith(f"{number.name}: the run saves and ends") and "a second signal" in first
    assert last == f"stopped by {number.name}: the same command goes on"
    assert not stop.asked() and signal.getsignal(number) is not None


def test_a_run_that_was_done_when_the_signal_came_is_done():
    def main(argv):
        stop.listen()
        send(signal.SIGTERM)

    assert cli.run(main, ["main"]) == 0


def test_signals_that_the_process_was_started_to_ignore_stay_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    stop.listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    send(signal.SIGTERM)  # comes after it, so that the other would have been read
    with pytest.raises(stop.Stopped, match="SIGTERM"):
        stop.check()
    stop.forget()
    assert signal.signal(signal.SIGUSR1, before) is signal.SIG_IGN


def test_other_threads_leave_handlers_alone():
    thread = threading.Thread(target=stop.listen)
    thread.start()
    thread.join()
    stop.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_process_that_runs_no_handlers(number):
    code = (
        "import hashlib, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from wmjax.run import stop; stop.listen(); print('in', flush=True); "
        "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2_000_000_000)"  # minutes without Python's lock
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM: the run saves" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert f"{number.name} after SIGTERM: ends at once" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


def test_dispatches_divide_a_phase():
    sizes = {(100, 10): 10, (250, 25): 25, (400, 25): 25, (2, 10): 2, (101, 10): 1, (96, 10): 8, (1, 1): 1}
    assert {args: stop.dispatch_size(*args) for args in sizes} == sizes
