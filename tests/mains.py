"""Tiny runs of the mains for tests, each in a process of its own, forked from one that has imported everything."""

import contextlib
import fcntl
import functools
import gc
import importlib
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import numpy as np

from tests import exporting
from wmjax.report import plots
from wmjax.report.progress import Progress
from wmjax.run import stop
from wmjax.run.cli import run
from wmjax.storage import checkpoint

ROOT = pathlib.Path(__file__).parent.parent
PLANET = (
    "--config=experiments/planet/config.py:fake:counter,cpu",
    "--config.env.size=16",
    "--config.model.encoder_widths=(4,8)",
    "--config.model.decoder_widths=(8,)",
    "--config.model.decoder_hidden=16",
    "--config.model.deterministic=8",
    "--config.model.stochastic=4",
    "--config.model.hidden=8",
    "--config.model.reward_units=8",
    "--config.planner.horizon=3",
    "--config.planner.candidates=10",
    "--config.planner.elites=2",
    "--config.train.chunk=6",
    "--config.train.batch=4",
    "--config.train.seed_episodes=2",
    "--config.train.episodes=5",
    "--config.train.updates_per_episode=2",
    "--config.train.checkpoint_every=1",
    "--config.train.replay_rows=40",
    "--config.evaluation.every=2",
    "--config.evaluation.episodes=2",
    "--config.evaluation.keep=True",
)
SMALLER_WORLD_MODELS = (
    "--config=experiments/smaller_world_models/config.py:Pong,cpu",
    "--config.env.size=8",
    "--config.env.episode_steps=25",
    "--config.model.encoder_widths=(4,)",
    "--config.model.decoder_widths=(4,)",
    "--config.model.codes=6",
    "--config.model.code_size=3",
    "--config.model.cells=(4,)",
    "--config.model.reward_channels=2",
    "--config.model.reward_hidden=8",
    "--config.train.iterations=3",
    "--config.train.interactions=(60,30)",
    "--config.train.warmup_epochs=1",
    "--config.train.epochs=(1,1)",
    "--config.train.rounds=(40,1)",
    "--config.train.frames=2",
    "--config.train.autoencoder_batch=4",
    "--config.train.dynamics_batch=2",
    "--config.train.dynamics_chunk=5",
    "--config.train.imagined_batch=2",
    "--config.train.imagined_steps=4",
    "--config.agent.minibatch=4",
    "--config.evaluation.episodes=2",
)
ENVIRONMENT_MODELS = (
    "--config=experiments/environment_models/config.py:ball,sssm,cpu",
    "--config.data.size=16",
    "--config.data.length=12",
    "--config.data.train_sequences=6",
    "--config.data.test_sequences=4",
    "--config.model.channels=8",
    "--config.model.encoder_width=8",
    "--config.model.decoder_width=8",
    "--config.model.reward_digits=2",
    "--config.train.updates=6",
    "--config.train.every=2",
    "--config.train.batch=2",
    "--config.train.predicted=4",
    "--config.evaluation.chunks=5",
    "--config.evaluation.draws=2",
)
I2A = (
    "--config=experiments/i2a/config.py:minipacman:regular,distilled,cpu",
    "--config.model_run=simulator",
    "--config.env.maze=9x11",
    "--config.env.episode_steps=7",
    "--config.agent.widths=(4,4)",
    "--config.agent.units=8",
    "--config.agent.encoder_strided=(4,)",
    "--config.agent.encoder_widths=(4,)",
    "--config.agent.encoder_units=8",
    "--config.agent.lstm_units=8",
    "--config.agent.policy_widths=(4,4)",
    "--config.agent.policy_units=8",
    "--config.agent.horizon=2",
    "--config.train.updates=6",
    "--config.train.every=2",
    "--config.train.rows=3",
    "--config.train.decisions=4",
    "--config.evaluation.episodes=2",
    "--config.evaluation.every=1",
)
I2A_GAME = (  # an environment that is stepped from the host
    "--config=experiments/i2a/config.py:Pong,model_free,cpu_games",
    "--config.model_run=",
    "--config.env.size=(32,32)",
    "--config.env.crop=0",
    "--config.env.actions=(0,3,4)",
    "--config.env.episode_steps=7",
    "--config.agent.kernels=(4,)",
    "--config.agent.strides=(4,)",
    "--config.agent.widths=(4,)",
    *(flag for flag in I2A[1:] if "model_run" not in flag and "maze" not in flag and ".widths" not in flag),
)
PRELOAD = [  # not the mains themselves, whose flags have the same names
    "experiments.planet.predictions",
    "experiments.smaller_world_models.predictions",
    "experiments.environment_models.predictions",
    "experiments.i2a.predictions",
    "distrax",
    "wmjax.storage.checkpoint",
    "wmjax.report.metrics",
    "ml_collections.config_flags",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
]
CURVES = ("comparison_in_page", "curve", "population", "returns", "times")  # functions of plots that make an SVG
HANGS = 900  # seconds; a table of several runs takes up to 300 on two busy cores
FLAGS = dict(
    planet=(*PLANET, "--config.seed=4"),  # the second member of a population of 3 and 4
    smaller_world_models=SMALLER_WORLD_MODELS,
    environment_models=ENVIRONMENT_MODELS,
    i2a=I2A,
)


class Ended(NamedTuple):
    code: int  # negative: the signal
    stdout: str
    stderr: str
    at: float = 0.0  # seconds by the monotonic clock


def start(
    workdir,
    *flags,
    kill_at=0,
    devices=1,
    experiment="planet",
    tiny=None,
    stop_at=(),
    over_at=0,
    drawn=False,
    exports=None,
):
    """Runs the main of an experiment to its end.

    tiny: flags of the run, None for those of FLAGS.
    devices: simulated CPU devices of its machine.
    kill_at, stop_at, over_at, drawn, exports: as in `fork`.
    Config, replay, videos, report and the manifests of checkpoints are files moved into place;
    before a manifest's move a checkpoint is whole but for it.
    """
    argv = [experiment, *words_of(workdir, flags, experiment, tiny)]
    how = dict(kill_at=kill_at, devices=devices, stop_at=stop_at, over_at=over_at, drawn=drawn, exports=exports)
    return fork(f"{experiment}.__main__", argv, **how)


def refused(workdir, *flags, experiment="planet"):
    """As `start`, in this process: for what ends before anything is trained."""
    return call(f"{experiment}.__main__", *words_of(workdir, flags, experiment))


def words_of(workdir, flags, experiment, tiny=None):
    """The words of a tiny run's command line."""
    tiny = tiny or FLAGS[experiment]
    config = [flag for flag in flags if flag.startswith("--config=")] or [tiny[0]]  # before its overrides
    others = [flag for flag in flags if flag not in config]
    return [*config, *tiny[1:], f"--workdir={workdir}", *others]


def together(workdir, *flags, experiment="planet", tiny=None, devices=1, of_second=()):
    """Runs a main in two processes that are one run: [Ended, Ended].

    tiny: as of `start`.
    devices: simulated ones of each process. of_second: more arguments of `fork` for the second process alone.
    """
    port, words, ended = free_port(), words_of(workdir, flags, experiment, tiny), [None, None]

    def run(index):
        argv = [experiment, *words, f"--distributed=127.0.0.1:{port}/2/{index}"]
        how = dict(of_second) if index else {}
        ended[index] = fork(f"{experiment}.__main__", argv, devices=devices, **how)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def free_port():
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def fork(module, argv, *, kill_at=0, devices=1, stop_at=(), over_at=0, drawn=False, exports=None):
    """Runs `main` of experiments.<module> to its end.

    kill_at: n > 0 kills the process with SIGKILL just before its n-th file is moved into place; the end of a path, just
      before such a file is.
    stop_at: (place, n) sends it SIGTERM at the n-th call of `place`, "module:function" or "module:class.method";
      (place, n, signal) another one.
    over_at: n > 0 says that the minutes are over when that is asked for the n-th time.
    drawn: whether curves are drawn, which takes a third of a tiny run's time.
    exports: a path for what `exporting.write_exports` finds of every program that the run compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        places = str(out), str(err), exports
        process = forked(_child, module, argv, kill_at, stop_at, over_at, drawn, devices, *places)
        process.join(HANGS)
        assert process.exitcode is not None, "the run hangs"
        return Ended(process.exitcode, out.read_text(), err.read_text(), time.monotonic())


def forked(function, *args):
    """Calls a function in a process of its own, which it returns."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOAD)
    process = processes.Process(target=function, args=args)
    process.start()
    return process


def whole_run(tmp_path_factory, experiment="planet"):
    """An uninterrupted run: (folder, number of files it moved into place); its exports are beside the folder.

    All workers of pytest-xdist share it: the first that needs it makes it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"whole_{experiment}"
    shared.mkdir(exist_ok=True)
    folder, said = shared / "run", shared / "moves"
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            ended = start(folder, experiment=experiment, drawn=True, exports=folder.with_suffix(".exports"))
            assert ended.code == 0, ended.stderr
            said.write_text(ended.stdout.rpartition("moves: ")[2])
    return folder, int(said.read_text())


def exports(whole):
    """{site of a jax.jit: what kept its programs from being exported, or ""} of `whole_run`."""
    return json.loads(whole[0].with_suffix(".exports").read_text())


def call(module, *words):
    """Runs `main` of experiments.<module> in this process: for what ends before anything is trained."""
    argv, out, err = [module, *words], io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(importlib.import_module(f"experiments.{module}").main, argv)
    except SystemExit as ended:
        code = ended.code
    return Ended(code, out.getvalue(), err.getvalue())


def settings_of(job):
    """["seed=0", ...] of the words of a training's Job."""
    return [word.removeprefix("--config.") for word in job.command if word.startswith("--config.")]


def command(module, *flags):
    """Runs `python -m experiments.<module>` as a user does."""
    words = [sys.executable, "-m", f"experiments.{module}", *flags]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)


def metrics(folder):
    """The rows of metrics.jsonl without their times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def state(folder):
    """The newest checkpoint without its clock, as a flat list of leaves; and the replay's files as arrays."""
    _, saved = checkpoint.restore_latest(folder, checkpoint.AS_SAVED)
    saved["run"] = {}  # clocks
    rows = [{k: v.copy() for k, v in np.load(path).items()} for path in sorted((folder / "replay").glob("*.npz"))]
    return saved, rows


def kept(folder):
    """The files of evaluations that a run kept: content by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / "evaluation").glob("*"))}


def summary(folder):
    """What a run says of itself at its end."""
    return json.loads((folder / "summary.json").read_text())


def assert_as_whole(folder, whole):
    """The same metrics, state and kept evaluations as of an undisturbed run, (folder, ...) as from `whole_run`."""
    assert metrics(folder) == metrics(whole[0])
    assert_same(state(folder), state(whole[0]))
    assert kept(folder) == kept(whole[0])


def assert_same(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        np.testing.assert_array_equal(a, b)


def _stop_at(place, count, number=signal.SIGTERM):
    """Sends this process a signal when a function is called for the count-th time, and waits until that is noticed."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), number)
            while not stop.asked():
                time.sleep(0.001)
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def _child(module, argv, kill_at, stop_at, over_at, drawn, devices, out, err, exports):
    gc.disable()  # a tiny run ends before its cycles are many, and looking for them takes a twentieth of its time
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    replace, moves = os.replace, []

    def counted(*args, **kwargs):
        moves.append(args)
        if len(moves) == kill_at or (isinstance(kill_at, str) and str(args[1]).endswith(kill_at)):
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*args, **kwargs)

    os.replace = counted
    for experiment in ("planet", "environment_models"):  # so that tiny phases have several dispatches
        importlib.import_module(f"experiments.{experiment}.phases").DISPATCHED = 1
    for experiment in ("smaller_world_models", "i2a"):
        phases = importlib.import_module(f"experiments.{experiment}.phases")
        phases.DISPATCHED = dict.fromkeys(phases.DISPATCHED, 1)
    if not drawn:
        for name in CURVES:
            setattr(plots, name, lambda *_, **__: "<svg></svg>")
    if stop_at:
        _stop_at(*stop_at)
    if over_at:
        asked = itertools.count(1)
        Progress.out_of_time = lambda *_: next(asked) >= over_at

    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    seen = exporting.watch() if exports else {}
    main = importlib.import_module(f"experiments.{module}").main
    from wmjax.run.cli import run

    code = run(main, argv)
    print(f"moves: {len(moves)}", flush=True)
    if exports:
        exporting.write_exports(exports, seen)
    os._exit(code)
