"""How much memory is free: the machine's, its control groups', and what they leave out."""

import pytest

from wmjax import memory

MACHINE = {"/proc/meminfo": "MemTotal: 99 kB\nMemAvailable:     8000 kB\nSwapFree: 7 kB\n"}
V2, V1 = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"
STAT = "anon 5\ninactive_anon 7\nactive_anon 9\ninactive_file 200\nactive_file 100\n"
STAT_1 = "inactive_file 1\nactive_file 1\ntotal_inactive_anon 5\ntotal_inactive_file 200\ntotal_active_file 100\n"


def group(place, limit, used, stat=""):
    """Files of a control group, of either version."""
    limit_name, used_name = ("memory.max", "memory.current")
    if place.startswith(V1):
        limit_name, used_name = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    return {f"{place}/{limit_name}": f"{limit}\n", f"{place}/{used_name}": f"{used}\n", f"{place}/memory.stat": stat}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        (MACHINE, 8_192_000),
        (MACHINE | {"/proc/self/cgroup": "0::/\n"}, 8_192_000),
        (MACHINE | {"/proc/self/cgroup": "0::/\n"} | group(V2, 5000, 1000), 4000),
        (MACHINE | {"/proc/self/cgroup": "0::/\n"} | group(V2, "max", 1000), 8_192_000),
        (MACHINE | {"/proc/self/cgroup": "0::/\n"} | group(V2, 5000, 1000, STAT), 4300),
        ({"/proc/self/cgroup": "0::/\n"} | group(V2, 5000, 6000), 0),
        (
            MACHINE
            | {"/proc/self/cgroup": "0::/slurm/job:7/step\n"}
            | group(f"{V2}/slurm", 9000, 8000)
            | group(f"{V2}/slurm/job:7", 2000, 500)
            | group(f"{V2}/slurm/job:7/step", "max", 500),
            1000,
        ),
        (
            MACHINE | {"/proc/self/cgroup": "3:cpuset:/\n4:memory:/docker/abc\n0::/\n"} | group(V1, 5000, 1000, STAT_1),
            4300,
        ),
        (
            MACHINE
            | {"/proc/self/cgroup": "4:cpu,memory:/a/b\n1:name=systemd:/c\n"}
            | group(V1, 2**63 - 4096, 1000)
            | group(f"{V1}/a/b", 7000, 1000)
            | group(f"{V1}/c", 10, 10),
            6000,
        ),
    ],
)
def test_the_smallest_limit_around_this_process_counts(files, free):
    assert memory.host_memory(lambda path: files.get(path, "")) == free


def test_free_memory_is_plausible():
    free = memory.free_memory()
    assert free is None or 10**7 < free < 10**14
