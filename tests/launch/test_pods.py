"""The files for clusters: they parse, their commands' flags and settings are right, the JobSet's pods make one run.

yaml is a requirement of ml_collections.
"""

import functools
import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from experiments.training import define_flags
from tests import mains
from wmjax.run import cli, processes

PODS = mains.ROOT / "launch" / "pods"
JOBSET = yaml.safe_load((PODS / "jobset.yaml").read_text())
SKYPILOT = yaml.safe_load((PODS / "skypilot.yaml").read_text())
JOB = JOBSET["spec"]["replicatedJobs"][0]
POD = JOB["template"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


def commands():
    """Everything after "start.sh" or "python -m" in the files, as words."""
    readme = (PODS / "README.md").read_text()
    found = [CONTAINER["args"], shlex.split(SKYPILOT["run"].replace("\\\n", "").partition("start.sh")[2])]
    for line in re.findall(r"(?:start\.sh|python -m) (experiments\.\w+ [^\"\n]*)", readme):
        found.append(shlex.split(line))
    return found


def test_there_is_a_command_for_each_way():
    assert len(commands()) == 5
    assert (PODS / "README.md").read_text().count("--worker=all") == 1


@pytest.mark.parametrize("words", commands(), ids=str)
def test_commands_have_flags_that_exist(words):
    name = words[0]
    configs = importlib.import_module(f"{name}.config")
    options = cli.parse_flags(words, functools.partial(define_flags, configs.USAGE), f"{name}.__main__", configs)
    assert options.workdir and options.config.devices == "all"
    if options.distributed != "off":
        assert processes.read(options.distributed) is None


@pytest.mark.parametrize(("words", "devices"), zip(commands(), (2, 2, 16, 16, 2), strict=True), ids=str)
def test_rows_can_be_split_over_the_devices_of_the_example(words, devices):
    configs = importlib.import_module(f"{words[0]}.config")
    config = cli.parse_flags(words, functools.partial(define_flags, configs.USAGE), words[0], configs).config
    sizes = (config.train.num_envs, config.train.batch, config.evaluation.episodes)
    assert all(size % devices == 0 for size in sizes), sizes


def test_the_jobset_is_one_indexed_job_that_starts_anew_as_a_whole():
    assert (JOBSET["apiVersion"], JOBSET["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert JOBSET["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] and JOBSET["spec"]["suspend"]
    job, environment = JOB["template"]["spec"], {each["name"]: each["value"] for each in CONTAINER["env"]}
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0 and POD["restartPolicy"] == "Never"
    assert job["completions"] == job["parallelism"] == int(environment["PROCESSES"])
    name = JOBSET["metadata"]["name"]
    assert environment["COORDINATOR"] == f"{name}-{JOB['name']}-0-0.{name}"
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == CONTAINER["name"]
    assert {each["name"] for each in CONTAINER["volumeMounts"]} == {each["name"] for each in POD["volumes"]}
    assert CONTAINER["args"][-1].startswith(f"--workdir={CONTAINER['volumeMounts'][0]['mountPath']}/")


def test_the_container_runs_what_the_pods_run():
    lines = (PODS / "Containerfile").read_text().splitlines()
    assert f'ENTRYPOINT ["{CONTAINER["command"][0]}"]' in lines
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((mains.ROOT / name).exists() for name in copied)
    assert os.access(PODS / "start.sh", os.X_OK)


def test_the_pods_of_the_jobset_are_one_run(tmp_path):
    """Their command and variables, with what the cluster would set; a tiny agent, minutes that are over at once."""
    given = {each["name"]: each["value"] for each in CONTAINER["env"]} | dict(COORDINATOR="127.0.0.1")
    given |= dict(PORT=str(mains.free_port()), PYTHON=sys.executable)
    settings = [
        word for word in CONTAINER["args"][1:] if word.startswith(("--config.devices", "--config.train.num_envs"))
    ]
    words = mains.words_of(tmp_path / "run", [*settings, "--minutes=0.0001"], "planet")
    pods = []
    for index in range(2):
        environment = os.environ | given | dict(JOB_COMPLETION_INDEX=str(index))
        command = [mains.ROOT / CONTAINER["command"][0], CONTAINER["args"][0], *words]
        pods.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    said = [pod.communicate(timeout=mains.HANGS) for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert "report: " in said[0][0] and "report: " not in said[1][0]
    assert not mains.summary(tmp_path / "run")["finished"]


@pytest.mark.parametrize("variables", [{}, dict(COORDINATOR="a", JOB_COMPLETION_INDEX="1")])
def test_one_process_alone_joins_nobody(variables, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    environment = dict(PATH=os.environ["PATH"], PYTHON=str(python)) | variables
    said = subprocess.check_output([PODS / "start.sh", "experiments.planet", "--a=1 2"], env=environment, text=True)
    assert said == "-m experiments.planet --a=1 2\n"
