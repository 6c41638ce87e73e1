"""What files of the system tell about memory, caches and clock: fake trees."""

import pytest
from test_runtime import machine

from bitinfer import hardware
from bitinfer.hardware import Cache

MEMINFO = "MemTotal:       16000 kB\nMemAvailable:   9000 kB\nSwapTotal: 500 kB\nSwapFree: 100 kB"
V1_NO_LIMIT = "9223372036854771712"


def test_memory_of_the_machine(tmp_path):
    found = hardware.memory(machine(tmp_path, {"proc/meminfo": MEMINFO}))
    assert (found.total, found.available) == (16000 * 1024, 9000 * 1024)
    assert (found.swap_total, found.swap_free) == (500 * 1024, 100 * 1024)
    assert found.cgroup_limit is None


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/memory.max": "5000000"}, 5000000),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/memory.max": "5000000"}, 5000000),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": "max"}, None),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": "999999999999"}, None),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/x\n1:cpu:/y",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": V1_NO_LIMIT,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000",
                "sys/fs/cgroup/cpu/y/memory.max": "1",
            },
            4000000,
        ),
    ],
)
def test_the_tightest_memory_limit_of_the_control_groups(tmp_path, files, limit):
    root = machine(tmp_path, {"proc/meminfo": MEMINFO, **files})
    assert hardware.memory(root).cgroup_limit == limit


def cache(index, level, kind, size, cpus):
    folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
    values = {"level": level, "type": kind, "size": size, "shared_cpu_list": cpus}
    return {f"{folder}/{name}": str(value) for name, value in values.items()}


def test_caches_by_level_without_those_for_instructions(tmp_path):
    files = {
        **cache(0, 3, "Unified", "36M", "0-7"),
        **cache(1, 1, "Instruction", "32K", "0"),
        **cache(2, 1, "Data", "48K", "0"),
        **cache(3, 2, "Unified", "", "0"),
    }
    assert hardware.caches(machine(tmp_path, files)) == [
        Cache(1, 48 << 10, 1),
        Cache(3, 36 << 20, 8),
    ]


def test_nodes_governor_and_huge_pages(tmp_path):
    machine(
        tmp_path,
        {
            "sys/devices/system/node/online": "0-1,3",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        },
    )
    assert hardware.numa_nodes(tmp_path) == 3
    assert hardware.clock_governor(tmp_path) == "powersave"
    assert hardware.huge_pages(tmp_path) == "madvise"


def test_a_machine_that_tells_nothing(tmp_path):
    assert hardware.caches(tmp_path) == []
    assert hardware.numa_nodes(tmp_path) is None
    assert hardware.clock_governor(tmp_path) is None
    assert hardware.huge_pages(tmp_path) is None
    assert hardware.memory(tmp_path).available is None


def test_this_machine_tells_its_memory():
    assert hardware.memory().total > 100_000_000
