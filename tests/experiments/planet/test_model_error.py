"""How a model ranks a planner's candidates beside the simulator: by hand, and of the simulator itself."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.planet import model_error
from tests import mains
from wmjax import envs
from wmjax.models import simulator
from wmjax.run.collect import stack
from wmjax.run.members import Member

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def episode():
    """(environment, Step [T, 1]) of random play that shows a simulator's state."""
    env = envs.make("physics:cheetah_run", 1, 0, action_repeat=4, episode_steps=80)
    rng, steps = np.random.default_rng(0), [env.reset()]
    while not steps[-1].is_last.all():
        steps.append(env.step(rng.uniform(-1, 1, (1, 6))))
    steps = stack(steps)
    return env, steps.replace(obs=dict(state=steps.obs))


def test_the_simulator_ranks_as_itself(episode, tmp_path):
    env, steps = episode
    model = simulator.make_model(env.spec._replace(obs=dict(state=env.spec.obs)), env.advance)
    size, begun = dict(horizon=3, candidates=16, elites=4), []
    advance = lambda states, actions: begun.append(states) or env.advance(states, actions)
    found = model_error.make_model_error(model, env.spec.action, advance, **size)(None, KEY, steps)
    places = [0, 2, 5, 7, 10, 12, 15, 17]  # of 20, those that can be gone on from
    np.testing.assert_array_equal(begun, np.repeat(steps.obs["state"][places], 16, axis=1))
    np.testing.assert_array_equal(found["correlation"], np.ones(3))
    np.testing.assert_array_equal(found["regret"], np.zeros(3))
    backwards = model._replace(rewards=lambda *args: -model.rewards(*args))
    found = model_error.make_model_error(backwards, env.spec.action, env.advance, **size)(None, KEY, steps)
    np.testing.assert_array_equal(found["correlation"], -np.ones(3))
    assert (found["regret"] > 1).all()
    assert set(model_error.metrics(found)) == {
        f"model_error/{name}_{step}" for name in ("correlation", "regret") for step in (1, 2, 3)
    }
    model_error.draw(tmp_path / "a.png", found)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_measured_for_the_planner_of_the_run(monkeypatch):
    monkeypatch.setattr(model_error.envs, "make", lambda *args, **options: SimpleNamespace(advance=args[0]))
    monkeypatch.setattr(model_error, "make_model_error", lambda model, spec, advance, **size: (advance, size))
    size = dict(horizon=3, candidates=16, elites=4)
    settings = SimpleNamespace(
        evaluation=SimpleNamespace(model_error=True),
        env=dict(observe="image+state"),
        tasks=dict(a=[Member("physics:cheetah_run", 0)], b=[Member("physics:walker_walk", 0)]),
        planner=SimpleNamespace(**size),
    )
    expected = dict(a=("physics:cheetah_run", size), b=("physics:walker_walk", size))
    assert model_error.make_measures(settings, None, None) == expected


def test_a_model_that_is_one_step_late_ranks_worse(episode):
    env, steps = episode
    late = lambda states, actions: env.advance(states, np.roll(actions, 1, axis=0))
    spec = env.spec._replace(obs=dict(state=env.spec.obs))
    size = dict(horizon=4, candidates=32, elites=4)
    model = simulator.make_model(spec, late)
    found = model_error.make_model_error(model, spec.action, env.advance, **size)(None, KEY, steps)
    assert (found["correlation"] < 0.9).all() and (found["regret"][:3] > 0.1).all()


def test_ranking_by_hand():
    """Two states, two steps, four candidates; sums over steps, not single rewards."""
    true = np.array([[[0.0, 1, 2, 3], [0, 0, 0, -4]], [[1, 1, 1, 1], [0, 0, 1, 2]]])
    predicted = np.array([[[1.0, 2, 3, 4], [0, 0, 0, 0]], [[5, 6, 7, 8], [-9, 0, 0, 0]]])
    found = model_error.ranking(predicted, true, elites=1)
    # At step 1 the second state's candidates earn the same and do not count. At step 2: sums 0 1 2 -1 against 1 2 3 4,
    # ranks 2 3 4 1 against 1 2 3 4: -0.2, and the model's best is the worst; 1 1 2 3 against -4 6 7 8.
    np.testing.assert_allclose(found["correlation"], [1, (-0.2 + 0.9486833) / 2], rtol=1e-6)
    np.testing.assert_allclose(found["regret"], [0, (2 + 1) / (2 - 0.5) / 2])


def test_rewards_that_are_all_equal(tmp_path):
    assert np.isnan(model_error.correlation(np.arange(3.0), np.ones(3)))
    assert model_error.correlation(np.ones(3), np.arange(3.0)) == 0
    nothing = model_error.ranking(np.ones((2, 3, 4)), np.zeros((2, 3, 4)), 2)
    assert np.isnan(nothing["correlation"]).all() and np.isnan(nothing["regret"]).all()
    model_error.draw(tmp_path / "a.png", nothing)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.evaluation.model_error=True"], "fake:counter does not show its state: take physics:<task> with"),
        (
            ["--config=experiments/planet/config.py:physics:cheetah_run,cpu", "--config.env.observe=state"],
            "image size 28x8 has no decoder",
        ),
    ],
)
def test_refusals(flags, message, tmp_path):
    ended = mains.refused(tmp_path / "a", *flags)
    assert ended.code == 2 and len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert message in ended.stderr and not (tmp_path / "a").exists()
