"""The page on which keys drive a model, asked by HTTP as the page's script does."""

import base64
import http.client
import io
import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.planet import interactive
from tests import browser
from tests.fakes import DISCRETE_SPEC, SPEC, make_point_model
from wmjax.types import UsageError

FIRSTS = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 51)])  # embeddings 0 and 0.2


def make_imagination(spec, **heads):
    """Of the point model, whose image is its position as a grey level: 0 is black, 1 is white."""
    model = make_point_model(spec.action.size)

    def decode(params, state):
        return jnp.broadcast_to(state.position[:, :1, None, None] - 0.5, (1, 4, 4, 3))

    return interactive.Imagination(model._replace(decode=decode, **heads), np.float32(1), spec.action, FIRSTS, seed=0)


def serving(spec):
    server = interactive.make_server(make_imagination(spec), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def server():
    yield from serving(SPEC)


@pytest.fixture(scope="module")
def discrete_server():
    yield from serving(DISCRETE_SPEC)


def ask(server, method, path, body=None):
    """(status, text) of one request."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def view(server, path, body=None):
    """The View of one request, and the grey level of its image."""
    status, text = ask(server, "POST", path, body)
    assert status == 200, text
    found = interactive.View(**json.loads(text))
    kind, _, content = found.image.partition(",")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert kind == "data:image/png;base64" and image.shape == (4, 4, 3) and np.ptp(image) == 0
    return found, image[0, 0, 0]


def test_actions_move_the_imagination_alone(server):
    """Positions (0, 0), (0.4, 0), (0.4, 0.2); reward: minus the squared distance from 0; the next start is at 0.2."""
    begun, grey = view(server, "/begin", {})
    assert grey == 0 and begun[1:] == (0, 0.0, 0.0, 1.0)
    first, grey = view(server, "/step", {"action": [0.4, 0]})
    assert grey == 102 and first[1:] == (1, -0.16, -0.16, 1.0)
    second, grey = view(server, "/step", {"action": [0, 0.2]})
    assert grey == 102 and second[1:] == (2, -0.2, -0.36, 1.0)
    assert view(server, "/step", {"action": [-9, 0]})[0].reward == -0.4  # clipped to -1: at (-0.6, 0.2)
    again, grey = view(server, "/begin", {})
    assert grey == 51 and again[1:] == (0, 0.0, 0.0, 1.0)


def test_discrete_actions_are_numbers(discrete_server):
    assert json.loads(ask(discrete_server, "GET", "/action")[1]) == dict(DISCRETE_SPEC.action._asdict())
    assert view(discrete_server, "/begin", {})[1] == 0
    assert view(discrete_server, "/step", {"action": 2})[1] == 0
    assert view(discrete_server, "/step", {"action": 0})[1] == 255
    for action in (3, -1, 0.0, [0], True):
        assert ask(discrete_server, "POST", "/step", {"action": action})[0] == 400


@pytest.mark.parametrize("action", [[0], [0, 0, 0], 1, "x", [0, "x"], [0, True], [float("nan"), 0], [10**400, 0], None])
def test_what_is_no_action_is_refused_and_changes_nothing(server, action):
    before, _ = view(server, "/begin", {})
    status, text = ask(server, "POST", "/step", {"action": action})
    assert status == 400 and text == "action: give 2 finite numbers\n"
    assert view(server, "/step", {"action": [0, 0]})[0].steps == before.steps + 1


def test_other_requests_are_refused(server):
    assert ask(server, "POST", "/step", [])[0] == 400
    assert ask(server, "POST", "/other", {})[0] == 404
    assert ask(server, "GET", "/../play.py")[0] == 404
    assert ask(server, "POST", "/step")[0] == 400


def test_the_page_is_whole_and_the_server_is_for_this_machine(server):
    status, page = ask(server, "GET", "/")
    assert status == 200 and page == interactive.PAGE.read_text() and page.endswith("</html>\n")
    assert "http" not in page.replace("http-equiv", "")  # nothing from elsewhere
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UsageError, match="--port=.*in use; give another"):
        interactive.make_server(None, server.server_address[1])


def test_rewards_that_a_model_does_not_predict_are_null():
    """As of LT_OR of the trade-offs study; JSON has no NaN, and the page reads nothing of an answer with one."""
    imagination = make_imagination(SPEC, reward=lambda params, state: jnp.full(1, jnp.nan))
    assert json.loads(json.dumps(imagination.begin()._asdict(), allow_nan=False))["reward"] == 0
    view = imagination.step(np.zeros(SPEC.action.size, np.float32))
    assert view.reward is None and view.total is None
    json.dumps(view._asdict(), allow_nan=False)


NUMBERS = """
const rows = [...document.querySelectorAll("#numbers tr")];
return Object.fromEntries(rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
"""
GREY = """
const image = document.getElementById("image"), canvas = document.createElement("canvas");
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
canvas.getContext("2d").drawImage(image, 0, 0);
return canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0];
"""


@pytest.mark.skipif(not browser.INSTALLED, reason="chromedriver is not installed")
def test_keys_drive_the_imagination_in_a_browser(server, discrete_server):
    """Decisions are taken while a key is held, and none after it; Enter begins anew, at the other start."""

    def decisions():
        return int(page.run(NUMBERS).get("decisions", -1))

    def at_rest():
        before = decisions()
        time.sleep(0.5)
        return decisions() == before

    with browser.browse() as page:
        page.open("http://{}:{}/".format(*server.server_address))
        browser.wait(lambda: decisions() == 0)
        start = page.run(GREY)
        page.press("q")
        assert page.run("return document.getElementById('key-q').className") == "down"
        browser.wait(lambda: decisions() >= 3)
        assert page.run(GREY) == 255, "moved as far as it goes"
        page.lift("q")
        browser.wait(at_rest)
        stopped = decisions()
        place = np.array([start / 255 + stopped, start / 255])  # one a decision
        assert float(page.run(NUMBERS)["reward"]) == pytest.approx(-np.square(place).sum(), abs=1e-3)
        page.press(browser.ENTER), page.lift(browser.ENTER)
        browser.wait(lambda: decisions() == 0)
        assert page.run(GREY) == 51 - start
        page.open("http://{}:{}/".format(*discrete_server.server_address))
        browser.wait(lambda: decisions() == 0)
        page.press("1")
        browser.wait(lambda: decisions() >= 2)
        page.lift("1")
        assert not page.run("return document.getElementById('fault').textContent")
