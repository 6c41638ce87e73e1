"""What machine and build a measurement was made on: facts that the system tells, else None."""

from __future__ import annotations

import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bitinfer import runtime
from bitinfer.cpu_count import performance_cores
from bitinfer.hardware import memory_bytes


def machine_facts(checkout: Path | None = None) -> dict[str, Any]:
    """Facts that belong to every benchmark record.

    Args:
        checkout: A folder inside bitinfer's git checkout, to name the commit.

    Returns:
        ``commit`` (12 digits, ``-dirty`` behind it if the tree has changes; None without a
        checkout), ``date`` (UTC, ISO 8601), ``cpu``, ``cores`` (physical ones that the process may
        use), ``memory`` (bytes), ``compiler`` (with its flags), ``system``.
    """
    return {
        "commit": None if checkout is None else _commit(checkout),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": performance_cores(),
        "memory": memory_bytes(),
        "compiler": runtime.compiler(),
        "system": f"{platform.system()} {platform.release()}",
    }


def checkout_here() -> Path | None:
    """The current folder, if it is a checkout of bitinfer: then records name its commit."""
    here = Path.cwd()
    return here if (here / "csrc" / "pack" / "format.h").is_file() else None


def cpu_name() -> str:
    """The CPU's own name, else the name of its architecture."""
    if platform.system() == "Darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string")
    else:
        try:
            text = Path("/proc/cpuinfo").read_text()
        except OSError:
            text = ""
        found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
        name = found[1].strip() if found else None
    return name or platform.machine()


def _commit(checkout: Path) -> str | None:
    command = ("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return _output("git", "-C", str(checkout), *command)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 (fixed commands)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
