"""Count the instructions of GEMV calls of the rows that valgrind can run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bitinfer import runtime

NEEDED = {"cc": "gcc", "valgrind": "valgrind"}  # program -> its package
SOURCE = Path(__file__).resolve().parent / "count_gemv.c"
Call = tuple[str, str, str]  # row, packing, family


class NotCountedError(Exception):
    """Why nothing was counted."""


def count_instructions(n: int, k: int) -> dict[Call, int]:
    """Instructions of one call each, one thread, look-up tables included.

    Args:
        n: Rows of the matrix.
        k: Its columns.

    Raises:
        NotCountedError: a program is missing or failed.
    """
    for program, package in NEEDED.items():
        if not shutil.which(program):
            raise NotCountedError(f"{program} is missing: apt install {package}")
    with tempfile.TemporaryDirectory() as folder:
        driver, counts = Path(folder) / "count_gemv", Path(folder) / "counts"
        library = runtime.library_dir()
        link = [f"-L{library}", "-lbitinfer", f"-Wl,-rpath,{library}"]
        _run("cc", "-O2", str(SOURCE), f"-I{runtime.include_dir()}", *link, "-o", str(driver))
        written = _run(
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}"),
            *("--toggle-collect=bitinfer_gemv", "--dump-after=bitinfer_gemv"),
            *("--combine-dumps=yes", str(driver), str(n), str(k)),
        )
        return by_call(written, counts.read_text(encoding="utf-8"))


def by_call(written: str, counts: str) -> dict[Call, int]:
    """What the driver wrote beside what valgrind counted, a total a call and one of the rest."""
    totals = [int(total) for total in re.findall(r"^totals: (\d+)$", counts, re.MULTILINE)]
    calls = [line.split() for line in written.splitlines()]
    if len(totals) != len(calls) + 1 or 0 in totals[:-1]:
        raise NotCountedError(f"expected counts of {len(calls)} calls, got {totals[:-1]}")
    return {
        (isa, packing, family): total
        for (isa, packing, family), total in zip(calls, totals[:-1], strict=True)
    }


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotCountedError(f"{command[0]} failed: {last}")
    return done.stdout
