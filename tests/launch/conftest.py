"""What every test of launching runs in: the repository's root, engines that look often, no curves unless asked for."""

import pytest

from launch import ray, slurm
from tests.mains import ROOT
from wmjax.report import plots
from wmjax.run import stop


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, request):
    monkeypatch.chdir(ROOT)
    for engine in (ray, slurm):
        monkeypatch.setattr(engine, "POLL", 0.05)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(plots, "comparison_in_page", lambda groups, title, metric: "<svg></svg>")
    yield
    stop.forget()


@pytest.fixture
def drawn():
    """For a test that looks at curves."""
