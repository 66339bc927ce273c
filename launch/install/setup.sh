#!/bin/sh
# Makes .venv with the locked versions; returns at once when it is up to date.
#
#   launch/install/setup.sh [cpu|cuda12]   the lock to install; cpu when left out
#   PYTHON=python3.12                      the interpreter; otherwise that of .venv, or the first suitable one on PATH
#
# Missing system packages (the venv module, an EGL driver) are installed with apt where that needs no password.
# Exit status: 0 ready, 2 when it takes the user, told in one line.
set -eu
cd "$(dirname "$0")/../.."
accelerator=${1:-cpu}
stamp=.venv/installed # written last, so that an interrupted installation starts again

say() { echo "setup: $*" >&2; }
fail() {
    say "$@"
    exit 2
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        sudo="sudo -n"
    fi
    say "installing $* with apt"
    $sudo apt-get update -qq >/dev/null || true # a stale list may still do
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

# Prints "3.12" if $1 runs, is new enough and can import the modules in $2.
python_version() {
    "$1" -c "import sys, $2; assert sys.version_info >= (3, 11); print('%d.%d' % sys.version_info[:2])" 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        version=$(python_version "$PYTHON" os) || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
        python=$PYTHON
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        version=$(python_version "$python" os) && return
    done
    fail "no Python 3.11 or newer on PATH: install one, or name it: make setup PYTHON=/path/to/python3.11"
}

make_venv() {
    package="python$version-venv" # Debian and Ubuntu keep ensurepip in a package of its own
    if ! python_version "$python" "venv, ensurepip" >/dev/null; then
        apt_install "$package" || fail "Python's venv module is missing; type: sudo apt install $package"
    fi
    rm -rf .venv
    "$python" -m venv .venv
}

any_file() {
    for file; do [ ! -e "$file" ] || return 0; done
    return 1
}

# The two loaders, and NVIDIA's driver or Mesa's behind them: a loader alone finds no device to draw on.
has_egl() {
    libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) || libraries=
    case $libraries in *libEGL.so.1*) ;; *) return 1 ;; esac
    case $libraries in *libOpenGL.so.0*) ;; *) return 1 ;; esac
    any_file /usr/share/glvnd/egl_vendor.d/*nvidia*.json /etc/glvnd/egl_vendor.d/*nvidia*.json && return
    any_file /usr/share/glvnd/egl_vendor.d/*mesa*.json || return 1
    any_file /usr/lib*/dri/swrast_dri.so /usr/lib/*/dri/swrast_dri.so /usr/lib*/libgallium*.so /usr/lib/*/libgallium*.so
}

# One call at a time: two installations in one folder spoil each other.
exec 9<launch/install/setup.sh
flock 9 2>/dev/null || true

egl_packages="libegl1 libopengl0 libgl1-mesa-dri"
# shellcheck disable=SC2086 # three words
has_egl || apt_install $egl_packages ||
    say "no EGL driver, so the control tasks cannot be drawn; type: sudo apt install $egl_packages"

venv_version=$(python_version .venv/bin/python pip) || venv_version=
version=$venv_version
if [ -n "${PYTHON:-}" ] || [ -z "$venv_version" ]; then find_python; fi

case $version in
3.11) lock=py311 ;;
*) lock=py312 ;;
esac
[ "$accelerator" = cpu ] || lock=$lock-$accelerator
lock=launch/install/locks/$lock.txt
[ -f "$lock" ] || fail "ACCELERATOR=$accelerator has no lock file; there are cpu and cuda12"

wanted=$({ echo "$PWD $version $lock" && cat pyproject.toml "$lock"; } | sha256sum)
if [ "$version" = "$venv_version" ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then exit; fi

say "installing $(grep -c == "$lock") packages from $lock into .venv; the first time takes a few minutes"
if [ "$version" != "$venv_version" ]; then make_venv; fi
rm -f $stamp
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# The lock is complete, and --no-deps keeps out what pyproject.toml takes from it on purpose. Of 12,000 files only those
# that are imported are compiled, and then.
.venv/bin/python -m pip install --quiet --no-compile --no-deps --require-hashes --only-binary :all: -r "$lock"
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
echo "$wanted" >$stamp
say "ready"
