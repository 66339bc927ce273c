#!/bin/sh
# Starts one process of a run that has several: launch/pods/start.sh MAIN FLAGS..., for example
#
#   COORDINATOR=planet-train-0-0.planet PROCESSES=2 JOB_COMPLETION_INDEX=1 \
#       launch/pods/start.sh experiments.planet --config=... --workdir=/runs/a
#
#   COORDINATOR            host name or address of process 0
#   PROCESSES              how many there are; one where it is not set, whatever the other two say
#   JOB_COMPLETION_INDEX   which one this is, from 0 on: Kubernetes sets it in the pods of an indexed job
#   PORT                   of process 0, 1234 unless given
#   PYTHON                 the interpreter, .venv/bin/python unless given
set -eu
cd "$(dirname "$0")/../.."
main=$1
shift
if [ -n "${PROCESSES:-}" ]; then
    set -- "$@" "--distributed=$COORDINATOR:${PORT:-1234}/$PROCESSES/$JOB_COMPLETION_INDEX"
fi
exec "${PYTHON:-.venv/bin/python}" -m "$main" "$@" # in place of the shell: signals reach it
