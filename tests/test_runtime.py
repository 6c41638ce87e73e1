import os
import subprocess
import sys

import pytest

from bitinfer import runtime
from bitinfer.cpu_count import performance_cores, physical_cores
from bitinfer.errors import ConfigError

CPU = "sys/devices/system/cpu"


def machine(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def siblings(*groups):
    return {
        f"{CPU}/cpu{cpu}/topology/thread_siblings_list": ",".join(map(str, group))
        for group in groups
        for cpu in group
    }


def test_threads_of_one_core_count_once(tmp_path):
    machine(tmp_path, siblings((0, 4), (1, 5), (2, 6), (3, 7)))
    assert performance_cores(tmp_path, set(range(8))) == 4


def test_only_the_affinity_mask_counts(tmp_path):
    machine(tmp_path, siblings((0, 4), (1, 5), (2, 6), (3, 7)))
    assert performance_cores(tmp_path, {1, 5, 6}) == 2


def test_efficiency_cores_of_a_hybrid_x86_do_not_count(tmp_path):
    machine(tmp_path, {**siblings((0, 1), (2, 3), (4,), (5,)), "sys/devices/cpu_core/cpus": "0-3"})
    assert performance_cores(tmp_path, set(range(6))) == 2


def test_a_process_bound_to_efficiency_cores_uses_them(tmp_path):
    machine(tmp_path, {**siblings((0, 1), (4,), (5,)), "sys/devices/cpu_core/cpus": "0-1"})
    assert performance_cores(tmp_path, {4, 5}) == 2


def test_small_cores_of_an_arm_machine_do_not_count(tmp_path):
    capacities = [300] * 4 + [900] * 3 + [1024]
    machine(tmp_path, {f"{CPU}/cpu{i}/cpu_capacity": str(c) for i, c in enumerate(capacities)})
    assert performance_cores(tmp_path, set(range(8))) == 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 2),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n3:memory:/y",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "600000",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            6,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        ({"proc/self/cgroup": "rubbish\n0::/../..", "sys/fs/cgroup/cpu.max": "x y"}, 8),
    ],
)
def test_a_cgroup_quota_caps_the_cores(tmp_path, files, expected):
    assert performance_cores(machine(tmp_path, files), set(range(8))) == expected


def test_cores_of_every_kind_are_counted_where_all_are_asked_for(tmp_path):
    machine(tmp_path, {**siblings((0, 1), (2, 3), (4,), (5,)), "sys/devices/cpu_core/cpus": "0-3"})
    assert physical_cores(tmp_path, set(range(6))) == 4
    assert physical_cores(tmp_path, {1, 4, 5}) == 3
    quota = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "300000 100000"}
    assert physical_cores(machine(tmp_path, quota), set(range(6))) == 3


@pytest.mark.parametrize(
    ("files", "performance", "physical"),
    [
        # 12th generation of Intel: 6 performance cores of two threads, 8 efficiency cores
        (
            {
                **siblings(*((2 * i, 2 * i + 1) for i in range(6)), *((i,) for i in range(12, 20))),
                "sys/devices/cpu_core/cpus": "0-11",
                "sys/devices/cpu_atom/cpus": "12-19",
            },
            6,
            14,
        ),
        # Core Ultra 200V: 4 + 4 cores, no second threads, efficiency cores numbered last
        (
            {
                **siblings(*((i,) for i in range(8))),
                "sys/devices/cpu_core/cpus": "0-3",
                "sys/devices/cpu_atom/cpus": "4-7",
            },
            4,
            8,
        ),
        # an Arm phone: 1 prime core, 3 large, 4 small
        (
            {
                f"{CPU}/cpu{i}/cpu_capacity": str(c)
                for i, c in enumerate([325] * 4 + [828] * 3 + [1024])
            },
            4,
            8,
        ),
    ],
)
def test_hybrid_processors(tmp_path, files, performance, physical):
    machine(tmp_path, files)
    cpus = set(range(20 if f"{CPU}/cpu19/topology/thread_siblings_list" in files else 8))
    assert performance_cores(tmp_path, cpus) == performance
    assert physical_cores(tmp_path, cpus) == physical


def test_a_machine_that_tells_nothing_counts_its_cpus(tmp_path):
    assert performance_cores(tmp_path, {0, 1, 2}) == 3


def test_environment_variable_sets_the_threads(monkeypatch):
    monkeypatch.setenv("BITINFER_NUM_THREADS", " 3 ")
    assert runtime.num_threads() == 3
    monkeypatch.setenv("BITINFER_NUM_THREADS", "")
    assert 1 <= runtime.num_threads() <= os.cpu_count()


@pytest.mark.parametrize("text", ["0", "-1", "257", "two", "1.5", "٣", "9" * 30])
def test_a_wrong_thread_count_is_refused(monkeypatch, text):
    monkeypatch.setenv("BITINFER_NUM_THREADS", text)
    with pytest.raises(ConfigError, match="BITINFER_NUM_THREADS: expected a whole number from 1"):
        runtime.num_threads()


@pytest.mark.parametrize("variable", ["BITINFER_ISA", "BITINFER_GEMV"])
def test_an_unknown_isa_or_family_fails_at_use_and_lists_the_choices(tmp_path, variable):
    code = (
        "import bitinfer\n"
        "try: bitinfer.active_isa()\n"
        "except bitinfer.UnsupportedIsaError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, variable: "nonsense"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nonsense" in done.stdout
    choice = {"BITINFER_ISA": "scalar", "BITINFER_GEMV": "addsub"}[variable]
    assert choice in done.stdout
    assert done.stdout.count("\n") == 1


def test_the_active_row_is_one_of_the_available_ones():
    assert runtime.active_isa() in runtime.available_isas()
    assert runtime.available_isas()[-1] == "scalar"


def test_a_note_of_the_dispatch_is_warned_once(monkeypatch):
    monkeypatch.setattr(runtime, "_noted", set())
    monkeypatch.setattr(runtime._core, "dispatch_notes", lambda: ["avx2 failed its self-test"])
    with pytest.warns(RuntimeWarning, match="avx2 failed its self-test"):
        runtime.active_isa()
    runtime.active_isa()
