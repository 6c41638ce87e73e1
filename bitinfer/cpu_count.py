"""How many cores the process may use; the performance cores are the threads to run by default.

Only files and system calls that tell about the machine are read here; ``runtime.num_threads`` adds
the environment variable. Every source that is missing is passed over.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from bitinfer.cgroup import cgroup_folders


def performance_cores(root: Path = Path("/"), allowed: set[int] | None = None) -> int:
    """Count the physical performance cores that this process may use, at least 1.

    Linux: the CPUs of the affinity mask; of a hybrid x86 only those of ``cpu_core``, of an Arm
    machine only those of more than half the largest ``cpu_capacity``; threads of one core count
    once; a cgroup's CPU quota (v2 or v1, the tightest up the tree, rounded down) caps the result.
    macOS: the physical cores of performance level 0. Elsewhere: the logical CPUs.

    Args:
        root: Where ``proc`` and ``sys`` are found; for tests.
        allowed: CPU numbers to use in place of the affinity mask; for tests.
    """
    if sys.platform == "darwin" and allowed is None:
        return sysctl_integer("hw.perflevel0.physicalcpu") or sysctl_integer("hw.physicalcpu") or 1
    allowed = _allowed() if allowed is None else allowed
    return _cores(root, _fast_cpus(root, allowed))


def physical_cores(root: Path = Path("/"), allowed: set[int] | None = None) -> int:
    """Count the physical cores of any kind that this process may use, at least 1.

    Args:
        root: Where ``proc`` and ``sys`` are found; for tests.
        allowed: CPU numbers to use in place of the affinity mask; for tests.
    """
    if sys.platform == "darwin" and allowed is None:
        return sysctl_integer("hw.physicalcpu") or 1
    return _cores(root, _allowed() if allowed is None else allowed)


def _allowed() -> set[int]:
    """The CPUs of the affinity mask."""
    if not hasattr(os, "sched_getaffinity"):
        return set(range(os.cpu_count() or 1))
    return os.sched_getaffinity(0)


def _cores(root: Path, cpus: set[int]) -> int:
    """The physical cores of ``cpus``, as many as the quota allows."""
    cores = len({_siblings(root, cpu) for cpu in cpus})
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _fast_cpus(root: Path, allowed: set[int]) -> set[int]:
    """The CPUs of ``allowed`` that are not efficiency cores; all of them if none is told apart."""
    fast = allowed & cpu_list(_read(root / "sys/devices/cpu_core/cpus"))  # x86 hybrid
    if fast:
        return fast
    folder = root / "sys/devices/system/cpu"
    capacity = {cpu: _number(_read(folder / f"cpu{cpu}/cpu_capacity")) for cpu in allowed}
    most = max((c for c in capacity.values() if c is not None), default=0.0)  # Arm
    return {cpu for cpu in allowed if 2 * (capacity[cpu] or most) > most} or allowed


def _siblings(root: Path, cpu: int) -> frozenset[int]:
    """All hardware threads of the core that ``cpu`` belongs to."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return frozenset(cpu_list(_read(topology / "thread_siblings_list")) | {cpu})


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU quota of this process's cgroup and its parents, in CPUs; None: no quota.

    Args:
        root: Where ``proc`` and ``sys`` are found; for tests.
    """
    quotas = (_quota(folder) for folder in cgroup_folders("cpu", root))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> float | None:
    quota, period = ([*_read(folder / "cpu.max").split(), "", ""])[:2]  # v2: "200000 100000"
    if not quota:
        quota = _read(folder / "cpu.cfs_quota_us").strip()  # v1: -1 is no quota
        period = _read(folder / "cpu.cfs_period_us").strip()
    used, whole = _number(quota), _number(period)
    return used / whole if used and whole and used > 0 and whole > 0 else None


def cpu_list(text: str) -> set[int]:
    """Parse the kernel's list form, "0-3,8"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last.isdecimal() or not last):
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def sysctl_integer(name: str) -> int | None:
    """An integer of macOS's sysctl by name; None where there is no such name."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    failed = ctypes.CDLL(None).sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return None if failed or value.value < 1 else value.value
