"""Recompute the digests of what is kept of a model, and name what is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitinfer.hub import hub_cache
from bitinfer.hub.digests import digest_of
from bitinfer.hub.records import HubFile, Record, read_digests


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was.

    Attributes:
        path: The file.
        problem: What was expected and what is there.
        source: Its name among the downloaded files; None: it is one of the packed folder.
    """

    path: Path
    problem: str
    source: str | None


def verify(record: Record, report: Callable[[str, int, int], None]) -> list[Damage]:
    """Read all files of a model and compare them with their digests.

    Args:
        record: The model.
        report: Called with "check", bytes read and bytes in all.
    """
    snapshot, packed = hub_cache.snapshot_folder(record), record.packed_folder
    checks = [(snapshot / name, file, name) for name, file in record.files.items()]
    for name, digest in read_digests(record).items() if record.is_packed else ():
        size = (packed / name).stat().st_size if (packed / name).exists() else 0
        checks.append((packed / name, HubFile(size, digest), None))  # type: ignore[arg-type]
    total, done = sum(file.size for _, file, _ in checks), 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        report("check", done, total)

    found = [(path, _problem(path, file, read), name) for path, file, name in checks]
    return [Damage(path, problem, name) for path, problem, name in found if problem]


def remove_damaged(record: Record, report: Callable[[str, int, int], None]) -> None:
    """Remove what is damaged, so that a pull makes it again."""
    for damage in verify(record, report):
        if damage.source is not None:
            hub_cache.remove_file(record, damage.source)
        else:
            shutil.rmtree(record.packed_folder.parent, ignore_errors=True)


def _problem(path: Path, file: HubFile, read: Callable[[int], None]) -> str | None:
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != file.size:
        return f"expected {file.size} bytes, got {size}"
    digest = digest_of(path, file, read)
    if digest != file.digest:
        return f"expected the digest {file.digest[:12]}…, got {digest[:12]}…"
    return None
