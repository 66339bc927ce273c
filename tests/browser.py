"""A headless Chromium that is driven by its own WebDriver, without a library.

Debian's: apt install chromium chromium-driver.
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

INSTALLED = shutil.which("chromedriver") is not None
SECONDS = 60  # to wait for anything
ENTER = "\ue007"


class Browser:
    """One window. Args of the class: address: of a WebDriver's session."""

    def __init__(self, address: str) -> None:
        self._address = address

    def open(self, url: str) -> None:
        """Loads a page."""
        ask(f"{self._address}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What JavaScript returns in the page."""
        return ask(f"{self._address}/execute/sync", {"script": script, "args": []})

    def press(self, key: str) -> None:
        """Holds a key down."""
        self._act({"type": "keyDown", "value": key})

    def lift(self, key: str) -> None:
        """Lets a key go."""
        self._act({"type": "keyUp", "value": key})

    def screenshot(self) -> bytes:
        """The window as a PNG file."""
        return base64.b64decode(ask(f"{self._address}/screenshot"))

    def _act(self, action: dict[str, str]) -> None:
        keys = {"type": "key", "id": "keyboard", "actions": [action]}
        ask(f"{self._address}/actions", {"actions": [keys]})


@contextlib.contextmanager
def browse() -> Iterator[Browser]:
    """A Browser, which is closed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        root = f"http://127.0.0.1:{port}"
        wait(lambda: reachable(f"{root}/status"))
        options = {
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=960,600"]
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        address = f"{root}/session/{ask(f'{root}/session', wanted)['sessionId']}"
        try:
            yield Browser(address)
        finally:
            ask(address, method="DELETE")
    finally:
        driver.terminate()
        driver.wait(SECONDS)


def ask(url: str, body: Any = None, method: str | None = None) -> Any:
    """The value that a WebDriver answers with."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=SECONDS) as answer:
        return json.load(answer)["value"]


def reachable(url: str) -> bool:
    """Whether somebody answers."""
    try:
        return ask(url)["ready"]
    except OSError:
        return False


def wait(seen: Callable[[], Any]) -> Any:
    """What `seen` returns, as soon as it is true; AssertionError after SECONDS."""
    end = time.monotonic() + SECONDS
    while not (value := seen()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value
