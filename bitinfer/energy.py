"""Joules that the processor's own counter says were used; without a counter nothing is guessed.

Linux: the RAPL counters of ``/sys/class/powercap`` (Intel, AMD), of all packages and, where they
are counted apart, their memory. macOS: ``powermetrics``, which only root may run. A counter counts
the whole machine: idle power and other programs are in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Protocol

POWERCAP = Path("/sys/class/powercap")
POWERMETRICS = Path("/usr/bin/powermetrics")
_SAMPLE_MS = 100  # of powermetrics: how exact the two ends of a span are


class EnergyCounter(Protocol):
    """A running total of joules.

    Attributes:
        source: What is counted and by what, or "not available: " and why.
    """

    source: str

    def joules(self) -> float | None:
        """Joules since some fixed time; None where nothing can be read."""

    def close(self) -> None:
        """Stop counting."""


class NoCounter:
    """Stands for the counter that a machine does not have.

    Args:
        reason: Why not, and what would help.
    """

    def __init__(self, reason: str) -> None:
        self.source = f"not available: {reason}"

    def joules(self) -> None:
        """None."""
        return

    def close(self) -> None:
        """Nothing to stop."""


class PowercapCounter:
    """Sums the counters of some powercap zones, each of which starts again from 0 at its range.

    Must be read more often than a zone wraps, which takes minutes at the least.

    Args:
        zones: Folders with ``name``, ``energy_uj`` and ``max_energy_range_uj``.

    Raises:
        OSError: one of them cannot be read.
        ValueError: one of them does not hold a number.
    """

    def __init__(self, zones: list[Path]) -> None:
        self._range_uj = {zone: int(_text(zone / "max_energy_range_uj")) for zone in zones}
        self._last_uj = {zone: int(_text(zone / "energy_uj")) for zone in zones}
        self._total_uj = 0
        self.source = "RAPL " + " + ".join(_text(zone / "name") for zone in zones)

    def joules(self) -> float | None:
        """Joules since the counter was made; None once a zone cannot be read any more."""
        try:
            now = {zone: int(_text(zone / "energy_uj")) for zone in self._range_uj}
        except (OSError, ValueError):
            return None
        for zone, value in now.items():
            step = value - self._last_uj[zone]
            self._total_uj += step if step >= 0 else step + self._range_uj[zone]
        self._last_uj = now
        return self._total_uj / 1e6

    def close(self) -> None:
        """Nothing to stop."""


class PowermetricsCounter:
    """Adds up what ``powermetrics`` prints: the CPU's mean power of each sample times its length.

    Args:
        program: The program, which only root may run.

    Raises:
        OSError: it cannot be started.
    """

    source = f"powermetrics, CPU power as macOS models it, every {_SAMPLE_MS} ms"

    def __init__(self, program: Path) -> None:
        command = [str(program), "--samplers", "cpu_power", "-i", str(_SAMPLE_MS)]
        self._process = subprocess.Popen(  # noqa: S603 (a fixed program)
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._joules: float | None = None
        self._first = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._first.wait(timeout=10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        elapsed_ms = 0.0
        for line in self._process.stdout:
            if found := re.search(r"\(([\d.]+)ms elapsed\)", line):
                elapsed_ms = float(found[1])
            elif found := re.match(r"CPU Power:\s*(\d+) mW", line):
                self._joules = (self._joules or 0.0) + int(found[1]) * elapsed_ms / 1e6
                self._first.set()
        self._first.set()

    def joules(self) -> float | None:
        """Joules since the counter was made; None if no sample has come."""
        return self._joules

    def close(self) -> None:
        """End the program and what it prints."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


def open_energy_counter(
    powercap: Path = POWERCAP, powermetrics: Path = POWERMETRICS, system: str = sys.platform
) -> EnergyCounter:
    """The machine's counter, or a `NoCounter` that says why there is none.

    Args:
        powercap: Where Linux shows its counters; for tests.
        powermetrics: macOS's program; for tests.
        system: As ``sys.platform``; for tests.
    """
    if system == "darwin":
        if os.geteuid() != 0:
            return NoCounter("macOS lets only root measure power: run the command with sudo")
        try:
            return PowermetricsCounter(powermetrics)
        except OSError as cause:
            return NoCounter(f"{powermetrics} does not start ({cause.strerror})")
    if system != "linux":
        return NoCounter(f"no energy counter is known on {system}")
    return _open_powercap(powercap)


def _open_powercap(powercap: Path) -> EnergyCounter:
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _is_counted(zone)]
    if not zones:
        return NoCounter(
            f"{powercap}/intel-rapl:0 is missing, as in most virtual machines and containers"
        )
    try:
        return PowercapCounter(zones)
    except PermissionError:
        return NoCounter(
            f"only root may read {powercap}/intel-rapl:*/energy_uj: to allow it until the next"
            f" start, run 'sudo chmod a+r {powercap}/intel-rapl:*/energy_uj'"
        )
    except (OSError, ValueError) as cause:
        return NoCounter(f"{powercap}/intel-rapl:* cannot be read ({cause})")


def _is_counted(zone: Path) -> bool:
    """Packages, and memory, which no package includes; cores and the like are inside a package."""
    try:
        name = _text(zone / "name")
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
