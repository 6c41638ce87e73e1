"""Memory, caches, NUMA nodes and clock of this machine, as the system tells them; else None.

Only files and system calls that tell about the machine are read here, nothing is measured.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bitinfer.cgroup import cgroup_folders
from bitinfer.cpu_count import cpu_list, sysctl_integer

_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes; None where the system does not tell.

    Attributes:
        total: Of the machine.
        available: That programs can get now without swapping.
        cgroup_limit: The tightest limit of the process's control groups; None: no limit below
            ``total``.
    """

    total: int | None
    available: int | None
    swap_total: int | None
    swap_free: int | None
    cgroup_limit: int | None


@dataclass(frozen=True)
class Cache:
    """A data or unified cache that the first CPU uses.

    Attributes:
        shared_by: Logical CPUs that share it.
    """

    level: int
    bytes: int
    shared_by: int


def memory(root: Path = Path("/")) -> Memory:
    """The machine's memory, and how much of it this process may use.

    Args:
        root: Where ``proc`` and ``sys`` are found; for tests.
    """
    values: dict[str, int] = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        amount = rest.split()[:1]
        if amount and amount[0].isdecimal():
            values[name] = int(amount[0]) * 1024  # kB
    total = values.get("MemTotal") or memory_bytes()
    limits = (_memory_limit(folder) for folder in cgroup_folders("memory", root))
    limit = min((limit for limit in limits if limit is not None), default=None)
    return Memory(
        total=total,
        available=values.get("MemAvailable"),
        swap_total=values.get("SwapTotal"),
        swap_free=values.get("SwapFree"),
        cgroup_limit=limit if limit is not None and (total is None or limit < total) else None,
    )


def memory_bytes() -> int | None:
    """Physical memory of the machine in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def caches(root: Path = Path("/")) -> list[Cache]:
    """Caches of the first CPU by level, without those for instructions.

    Args:
        root: Where ``sys`` is found; for tests.
    """
    if sys.platform == "darwin" and root == Path("/"):
        names = {1: "hw.perflevel0.l1dcachesize", 2: "hw.perflevel0.l2cachesize"}
        sizes = {level: sysctl_integer(name) for level, name in names.items()}
        shared = {1: 1, 2: sysctl_integer("hw.perflevel0.cpusperl2") or 1}
        return [Cache(level, size, shared[level]) for level, size in sizes.items() if size]
    found = []
    for folder in sorted((root / _CPUS / "cpu0/cache").glob("index*")):
        level, size = _read(folder / "level"), _read(folder / "size")
        if _read(folder / "type") != "Instruction" and level.isdecimal() and size[:-1].isdecimal():
            unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 0)
            shared_by = max(1, len(cpu_list(_read(folder / "shared_cpu_list"))))
            found.append(Cache(int(level), int(size[:-1]) * unit, shared_by))
    return sorted(found, key=lambda cache: cache.level)


def numa_nodes(root: Path = Path("/")) -> int | None:
    """Memory nodes; more than one means that memory is nearer to some cores than to others.

    Args:
        root: Where ``sys`` is found; for tests.
    """
    nodes = cpu_list(_read(root / "sys/devices/system/node/online"))
    return len(nodes) or None


def clock_governor(root: Path = Path("/")) -> str | None:
    """What sets the CPU's clock: ``performance``, ``powersave``, ...

    Args:
        root: Where ``sys`` is found; for tests.
    """
    return _read(root / _CPUS / "cpu0/cpufreq/scaling_governor") or None


def huge_pages(root: Path = Path("/")) -> str | None:
    """Who gets transparent huge pages: ``always``, ``madvise`` (who asks) or ``never``.

    Args:
        root: Where ``sys`` is found; for tests.
    """
    text = _read(root / "sys/kernel/mm/transparent_hugepage/enabled")
    return text.partition("[")[2].partition("]")[0] or None


def load() -> float | None:
    """Threads that ran or waited to run in the last minute, of all programs."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _memory_limit(folder: Path) -> int | None:
    text = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")  # v2, v1
    return int(text) if text.isdecimal() else None  # "max" is none


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
