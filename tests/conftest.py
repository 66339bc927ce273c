"""Settings for every test and every process that a test starts; they must precede the first import of jax."""

import ctypes
import gc
import os
import pathlib
import signal

import pytest

_ROOT = pathlib.Path(__file__).parent.parent

_SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUMPY_RANK_PROMOTION": "raise",  # [B] + [B, 1] is a bug more often than a wish
    "JAX_COMPILATION_CACHE_DIR": str(_ROOT / ".jax_cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # every file starts the same small programs
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    "MUJOCO_GL": "egl",
}

for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
# Tests, and the mains that they fork, run each program a few times on tiny arrays: what they wait for is the compiler.
# The older emitters of fusions compile several times as fast; threads that compile help nobody where all cores test.
_QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ["XLA_FLAGS"] = " ".join((*_QUICK, os.environ.get("XLA_FLAGS", ""))).strip()  # of two, the last counts

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Garbage is collected at the end of each file alone, and never looked for in what the tests have imported."""
    gc.freeze()
    gc.disable()


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Gives a file's memory back at its end: compiling leaves a gigabyte of freed pieces in each process."""
    import jax

    yield
    jax.clear_caches()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
