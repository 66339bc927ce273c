"""Writes what acts of a run's newest checkpoint into a folder of its own: no optimiser, no replay, no data.

    python -m experiments.export --workdir=runs/a --out=pretrained/cheetah_run

`evaluate`, `play`, `load` and `--config.model_run` take that folder as they take the run's; it cannot be trained on.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.environment_models.agent import OWN_DATA
from wmjax import console
from wmjax.run import cli
from wmjax.storage import checkpoint, datasets, files, workdir
from wmjax.types import UsageError

LEARNERS = ("learner", "world", "policy")  # entries of checkpoints that hold parameters, by name


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.path_flag(values, "out", "folder to write; empty, or not there yet")


def main(argv: list[str]) -> None:
    """Exports one run. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    if options.out is None:
        raise UsageError("give --out=DIR, the folder to write")
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out={out}: not an empty folder")
    files.check_place(out)
    cli.use_jax()
    export(folder, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    console.say(f"{out}: {size / 1e6:.1f} MB")


def export(folder: Path, out: Path) -> None:
    """Writes `out`, whole or not at all. Raises: UsageError if `folder` holds no run or no good checkpoint."""
    config = workdir.read_config(folder)
    restored = checkpoint.restore_latest(folder, checkpoint.AS_SAVED)
    if restored is None:
        raise UsageError(f"{folder} has no checkpoint yet")
    files.make_folder(out)
    step, state = restored
    half = out.with_name(f".{out.name}.half")
    shutil.rmtree(half, ignore_errors=True)  # of an export that was broken off
    files.make_folder(half)
    checkpoint.save(half, step, {name: acting(state[name]) for name in LEARNERS if name in state})
    if "recorded" in config:  # an environment model of recorded data: what those were, without their rows
        data = folder / OWN_DATA if (folder / OWN_DATA).exists() else Path(config["task"])
        copy(data, half / OWN_DATA, (workdir.CONFIG, datasets.INDEX))
        config = config | dict(task=OWN_DATA)
    copy(folder, half, ("summary.json",))
    files.atomic_write(half / workdir.CONFIG, json.dumps(config | dict(exported=True), indent=1) + "\n")
    os.replace(half, out)


def acting(learner: dict[str, Any]) -> dict[str, Any]:
    """What `lifecycle.acting_part` asks for of a LearnerState as saved."""
    dropped = {"opt_state"} | ({"params"} if learner["acting"] is not None else set())
    return {name: part for name, part in learner.items() if name not in dropped}


def copy(folder: Path, out: Path, names: Sequence[str]) -> None:
    """Copies those of the named files that are there."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (folder / name).exists():
            files.atomic_write(out / name, (folder / name).read_bytes())


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
