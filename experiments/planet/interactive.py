"""A page on which keys drive a model: actions in, decoded images out, no environment.

The server listens on this machine alone. GET / is the page, GET /action what an action looks like, POST /begin a new
start, POST /step {"action": ...} one decision; these two answer with a View as JSON.
"""

import base64
import contextlib
import functools
import json
import pathlib
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import jax
import numpy as np

from wmjax import console, imagine
from wmjax.ops import image_bits
from wmjax.ops.actions import model_action
from wmjax.report import video
from wmjax.types import ActionSpec, Array, Params, State, UsageError

STARTS = 8  # first images of episodes, taken in turn
HOST = "127.0.0.1"
PAGE = pathlib.Path(__file__).with_name("interactive.html")
LARGEST = 1e30  # number in an action, before it is clipped


class View(NamedTuple):
    """What the page shows."""

    image: str  # a PNG file as a data URL
    steps: int  # decisions since the start
    reward: float | None  # predicted for the last one; None of a model that has none of single states
    total: float | None  # the sum of them
    discount: float  # predicted probability that the episode goes on


class Imagination:
    """A belief that begins at a first image and is then moved by actions alone; threads may call its methods."""

    def __init__(self, model: Any, params: Params, action_spec: ActionSpec, firsts: Any, seed: int) -> None:
        """model: WorldModel; params: of one member; firsts: observations [N, ...] of first steps."""
        self.action_spec = action_spec
        self._params, self._key, self._firsts = params, jax.random.key(seed), firsts
        self._lock, self._calls, self._begun = threading.Lock(), 0, 0
        self._steps, self._total = 0, 0.0
        self._state: Any = None

        @jax.jit
        def begin(params: Params, key: Array, obs: Any) -> tuple[State, tuple]:
            state = imagine.begin(model, params, key, obs, action_spec)
            return state, seen(params, state)

        @jax.jit
        def step(params: Params, key: Array, state: State, action: Array) -> tuple[State, tuple]:
            state = model.imagine(params, key, state, model_action(action, action_spec))
            return state, seen(params, state)

        def seen(params: Params, state: State) -> tuple[Array, Array, Array]:
            image = image_bits.to_uint8(model.decode(params, state))
            return image[0], model.reward(params, state)[0], model.discount(params, state)[0]

        self._begin, self._step = begin, step
        self.begin()
        self.step(np.int32(0) if action_spec.discrete else np.zeros(action_spec.size, np.float32))  # both are compiled
        self._begun = 0

    def begin(self) -> View:
        """The View of a new start, with its own reward of 0."""
        with self._lock:
            obs = jax.tree.map(lambda x: x[self._begun % len(x)][None], self._firsts)
            self._begun, self._steps, self._total = self._begun + 1, 0, 0.0
            self._state, (image, _, discount) = self._begin(self._params, self._next_key(), obs)
            return self._view(image, 0.0, discount)

    def step(self, action: Array) -> View:
        """The View after one decision. action: as of `read_action`."""
        with self._lock:
            if self._state is None:
                raise UsageError("begin first")
            found = self._step(self._params, self._next_key(), self._state, action[None])
            self._state, (image, reward, discount) = found
            self._steps, self._total = self._steps + 1, self._total + float(reward)
            return self._view(image, reward, discount)

    def _next_key(self) -> Array:
        self._calls += 1
        return jax.random.fold_in(self._key, self._calls)

    def _view(self, image: Array, reward: Array, discount: Array) -> View:
        text = base64.b64encode(video.png(np.asarray(image))).decode()
        url = f"data:image/png;base64,{text}"
        reward, total = (round(float(x), 4) if np.isfinite(x) else None for x in (reward, self._total))
        return View(url, self._steps, reward, total, round(float(discount), 4))


def read_action(body: bytes, spec: ActionSpec) -> Array:
    """The action in the JSON text {"action": ...}: float32 [A] within the bounds, or int32 [].

    Raises: UsageError unless it is A finite numbers, or the number of a discrete action.
    """
    try:
        action = json.loads(body)["action"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError('send {"action": ...} as JSON') from error
    if spec.discrete:
        if type(action) is not int or not 0 <= action < spec.size:
            raise UsageError(f"action {action!r}: give a whole number from 0 to {spec.size - 1}")
        return np.int32(action)
    ok = isinstance(action, list) and len(action) == spec.size
    if not ok or not all(type(x) in (int, float) and abs(x) <= LARGEST for x in action):
        raise UsageError(f"action: give {spec.size} finite numbers")
    return np.clip(np.array(action, np.float32), spec.low, spec.high)


class Handler(BaseHTTPRequestHandler):
    """Answers one request; see the module's text."""

    def __init__(self, imagination: Imagination, *args: Any) -> None:
        self.imagination = imagination
        super().__init__(*args)

    def do_GET(self) -> None:
        """The page, or what an action looks like."""
        if self.path == "/":
            self.answer(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")
        elif self.path == "/action":
            self.answer_json(self.imagination.action_spec)
        else:
            self.answer(HTTPStatus.NOT_FOUND, b"there are /, /action, /begin and /step\n")

    def do_POST(self) -> None:
        """A new start, or one decision; 400 and one line for an action that is none."""
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        try:
            if self.path == "/begin":
                self.answer_json(self.imagination.begin())
            elif self.path == "/step":
                self.answer_json(self.imagination.step(read_action(body, self.imagination.action_spec)))
            else:
                self.answer(HTTPStatus.NOT_FOUND, b"there are /begin and /step\n")
        except UsageError as error:
            self.answer(HTTPStatus.BAD_REQUEST, f"{error}\n".encode())

    def answer_json(self, record: Any) -> None:
        """A NamedTuple as JSON."""
        self.answer(HTTPStatus.OK, json.dumps(record._asdict()).encode(), "application/json")

    def answer(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        """Sends bytes."""
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", len(content)), ("Cache-Control", "no-store")):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are not told."""


def make_server(imagination: Imagination, port: int) -> ThreadingHTTPServer:
    """A server of one Imagination on this machine alone. Raises UsageError where the port is taken."""
    try:
        return ThreadingHTTPServer((HOST, port), functools.partial(Handler, imagination))
    except OSError as error:
        raise UsageError(f"--port={port}: {error.strerror}; give another, or 0 for one that is free") from error


def serve(server: ThreadingHTTPServer) -> None:
    """Serves until Ctrl-C."""
    console.say(f"open http://{HOST}:{server.server_address[1]}/ on this machine; Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever()
