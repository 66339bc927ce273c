"""Writes metrics and a summary, after what --config.fault says. Every start is a line of WORKDIR.starts.

exit:3 ends so at every start, first:75 at the first one alone, kill kills itself at the first start, sleep:5 sleeps,
nap:5 does so at the first start.
"""

import itertools
import json
import os
import pathlib
import signal
import sys
import time


def main(argv):
    """argv: as of a training main."""
    flags = dict(word.lstrip("-").split("=", 1) for word in argv[1:])
    folder, fault = pathlib.Path(flags["workdir"]), flags.get("config.fault", "")
    seed, kind = int(flags.get("config.seed", 0)), flags.get("config.model.kind", "rssm")
    starts = folder.with_name(f"{folder.name}.starts")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(starts, "a") as file:
        print(json.dumps(dict(flags=flags, pid=os.getpid())), file=file, flush=True)
    first = len(starts.read_text().splitlines()) == 1
    what, _, number = fault.partition(":")
    print("begins", flush=True)
    if (what == "exit" or (what == "first" and first)) and not (folder / "summary.json").exists():
        print(f"error: told to end with {number}", file=sys.stderr)
        sys.exit(int(number))
    if what == "kill" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if (what == "sleep" or (what == "nap" and first)) and not (folder / "summary.json").exists():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        (folder.parent / "asleep").write_text(str(os.getppid()))
        time.sleep(float(number))
    population = int(flags.get("config.population", 1))
    tasks = flags["config"].partition(":")[2].partition(",")[0].split("+")
    for task, each in itertools.product(tasks, range(seed, seed + population)):
        name = f"{task.split(':')[-1]}_" * (len(tasks) > 1) + f"seed_{each}"
        place = folder / name if population * len(tasks) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        best = each + 100 * (kind == "ssm") + 1000 * (task == "fake:terminating")
        lines = [{"env_steps": 10 * i, "eval/return_mean": i + best} for i in (1, 2)]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (place / "summary.json").write_text(json.dumps(dict(finished=True)))
    (folder / "summary.json").write_text(json.dumps(dict(finished=True)))


if __name__ == "__main__":
    main(sys.argv)
