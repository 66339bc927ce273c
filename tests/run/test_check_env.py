"""`python -m wmjax.run.check_env`: what it tells and draws, and what ends in one line with exit code 2."""

import itertools

import numpy as np
import pytest
from PIL import Image

from tests.gym_walk import GridWalk
from wmjax.run import check_env, cli

CALLS = itertools.count()


class Forgetful(GridWalk):
    """No two episodes begin alike, whatever the seed."""

    def reset(self, *, seed=None):
        return super().reset(seed=next(CALLS))


def check(capsys, *words):
    code = cli.run(check_env.main, ["check_env", *words])
    return code, *capsys.readouterr()


def test_what_it_tells_and_draws(capsys, tmp_path):
    place = tmp_path / "a" / "b.png"
    words = ("--decisions=12", "--env.episode_steps=5", "--env.image_key=any", "--seed=4", f"--picture={place}")
    code, out, err = check(capsys, "py:tests.gym_walk:GridWalk", *words)
    assert code == 0 and not err
    lines = dict(line.split(maxsplit=1) for line in out.replace("same twice", "same_twice").splitlines())
    assert lines["observes"] == "uint8 (64, 64, 3)" and lines["actions"] == "one of 6"
    assert "5 decisions" in lines["time"] and "0 to 255" in lines["images"] and "4 ended" in lines["episodes"]
    assert "sha256" in lines["same_twice"]
    sheet = np.array(Image.open(place)).astype(int)
    strips = [[sheet[14 + 146 * row :][:128, 132 * column :][:, :128] for column in range(6)] for row in range(3)]
    own, planet, newest = (np.concatenate(strip[:count]) for strip, count in zip(strips, (6, 6, 4), strict=True))
    assert own.max() == 255 and abs(planet - own).max() <= 4, "the same moments"
    assert set(planet.flat) <= set(np.rint(255 * (np.arange(32) + 0.5) / 32).astype(int)), "32 levels"
    assert (newest == newest[..., :1]).all() and len(np.unique(newest)) > 1, "grey"


def test_an_environment_that_differs_the_second_time_is_refused(capsys, tmp_path):
    words = ("--decisions=5", f"--picture={tmp_path / 'a.png'}")
    code, out, err = check(capsys, "py:tests.run.test_check_env:Forgetful", *words)
    assert code == 2 and "no, they differ at the reset" in out
    assert err.splitlines()[-1].startswith("error: py:tests.run.test_check_env:Forgetful is no function of its seed")


def test_an_environment_whose_state_is_set_may_differ(capsys, tmp_path):
    words = ("--decisions=5", f"--picture={tmp_path / 'a.png'}")
    code, out, err = check(capsys, "py:tests.gym_walk:StateWalk", *words)
    assert code == 0 and not err and "no, they differ at the reset" in out
    assert out.splitlines()[-1].split(maxsplit=1) == ["resumes", "by its get_state and set_state, which were tried"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "give the name of an environment"),
        (["fake:counter", "fake:terminating"], "unexpected argument 'fake:terminating'"),
        (["fake:countr"], "Did you mean counter"),
        (["fake:counter", "--env.szie=16"], "unknown fake option 'szie'. Did you mean size"),
        (["fake:counter", "--env.size=large"], "size='large'"),
        (["fake:counter", "--decisions=3"], "--decisions=3"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, words, named):
    code, _, err = check(capsys, *words)
    assert code == 2 and named in err and err.count("\n") == 1, err


def test_images_of_one_size_are_shown_as_they_are(capsys, tmp_path):
    place = tmp_path / "a.png"
    code, _, err = check(capsys, "minipacman:hunt", "--env.maze=9x11", "--decisions=4", f"--picture={place}")
    assert code == 0 and not err
    assert Image.open(place).convert("RGB").getpixel((0, 14)) == (255, 255, 255), "a wall"
