"""The platform is asked in one place, and what accelerators take instead of the CPU's paths computes the same."""

import jax
import numpy as np

from tests import tiny_rssm
from tests.exporting import ROOT
from tests.fakes import SPEC
from wmjax import backend
from wmjax.agents.random import make_random_actor
from wmjax.models import rssm
from wmjax.ops.batching import vmap_or_map
from wmjax.run import collect


def test_one_file_asks_for_the_platform():
    files = [path for top in ("wmjax", "experiments", "launch") for path in (ROOT / top).rglob("*.py")]
    asking = [str(path.relative_to(ROOT)) for path in files if "default_backend" in path.read_text()]
    assert asking == ["wmjax/backend.py"]


def test_another_platform_is_taken_inside_alone():
    assert backend.name() == "cpu" and backend.is_cpu()
    with backend.as_on("gpu"):
        with backend.as_on("tpu"):
            assert backend.name() == "tpu"
        assert backend.name() == "gpu" and not backend.is_cpu()
    assert backend.is_cpu()


def test_acting_is_compiled_with_options_that_this_xla_knows(monkeypatch):
    assert backend.acting_options() == {"xla_cpu_experimental_ynn_fusion_type": ""}
    made, jit = [], jax.jit
    monkeypatch.setattr(jax, "jit", lambda *args, **settings: made.append(settings) or jit(*args, **settings))
    collect.make_player(make_random_actor(SPEC.action), 1, explore=True)
    assert made[-1]["compiler_options"] == backend.acting_options()


def test_options_that_an_xla_does_not_know_are_left_out(monkeypatch):
    jit = jax.jit
    unknown = lambda function, compiler_options: jit(function, compiler_options={"xla_cpu_no_such_option": ""})
    monkeypatch.setattr(jax, "jit", unknown)
    assert backend.acting_options.__wrapped__() == {}


def test_a_population_of_planet_learns_the_same_by_the_paths_of_accelerators():
    """XLA's convolutions and members side by side, beside matrix products and members in turn."""
    _, learner = rssm.make(tiny_rssm.configured(kind="ssm"), SPEC)
    keys = jax.random.split(tiny_rssm.KEY, 2)
    states = jax.jit(jax.vmap(learner.init))(keys)
    batches = jax.tree.map(lambda x: np.stack([x, x[::-1]]), tiny_rssm.chunks())
    found, programs = [], []
    for platform in ("cpu", "gpu"):
        update = lambda *args: vmap_or_map(learner.update)(*args)
        with backend.as_on(platform):
            traced = jax.jit(update).trace(states, keys, batches)
            programs.append(str(traced.jaxpr))
            found.append(traced.lower().compile()(states, keys, batches)[1])
    assert ["conv_general_dilated" in program for program in programs] == [False, True]
    metrics = [{name: x for name, x in each.items() if name != "grad_finite"} for each in found]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), *metrics)
    assert metrics[0]["loss"].shape == (2,) and metrics[0]["loss"][0] != metrics[0]["loss"][1]
