"""What is kept of pulled models: list it, and remove it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitinfer.errors import HubError
from bitinfer.hub import hub_cache
from bitinfer.hub.names import ModelName
from bitinfer.hub.pull import locked
from bitinfer.hub.records import Record, all_records, files_in, forget_record, read_record


@dataclass(frozen=True)
class Kept:
    """A pulled model on this disk.

    Attributes:
        record: What was pulled.
        source_bytes: Of the files of the hub that are here.
        packed_bytes: Of the packed folder; 0: there is none.
        used: When it was last loaded or pulled, seconds since 1970.
    """

    record: Record
    source_bytes: int
    packed_bytes: int
    used: float

    @property
    def state(self) -> str:
        """``packed`` (ready), ``downloaded`` or ``partial``."""
        if self.record.is_packed:
            return "packed"
        complete = all(hub_cache.has_file(self.record, name) for name in self.record.files)
        return "downloaded" if complete else "partial"


def list_models() -> list[Kept]:
    """Pulled models, the last used first."""
    kept = [_kept(record, used) for record, used in all_records()]
    return sorted(kept, key=lambda one: one.used, reverse=True)


def find_kept(name: ModelName) -> Kept:
    """A pulled model.

    Raises:
        HubError: it was not pulled.
    """
    for one in list_models():
        if one.record.name == name:
            return one
    raise HubError(f"{name}: not on this disk: 'bitinfer pull {name}' fetches it")


def remove(name: ModelName, report: Callable[[str, int, int], None]) -> None:
    """Remove a model: the files of the hub, the packed folder and the record.

    What another pulled revision of it needs as well stays.

    Args:
        name: The model.
        report: Told "wait" while another process pulls the model.

    Raises:
        HubError: it was not pulled.
    """
    with locked(name.repo, report):
        record = read_record(name)
        if record is None:
            raise HubError(f"{name}: not on this disk: 'bitinfer list' shows what is")
        forget_record(record)
        others = [other for other, _ in all_records() if other.repo == record.repo]
        if all(other.commit != record.commit for other in others):
            hub_cache.remove_snapshot(record)
        packed = record.packed_folder.parent
        if all(other.key != record.key for other in others):
            shutil.rmtree(packed, ignore_errors=True)
        if not others:
            shutil.rmtree(packed.parent, ignore_errors=True)


def _kept(record: Record, used: float) -> Kept:
    snapshot = hub_cache.snapshot_folder(record)
    source = _bytes([snapshot / name for name in record.files])
    source += _bytes(hub_cache.partial_paths(record.repo))
    folder = record.packed_folder
    packed = _bytes(list(files_in(folder).values())) if folder.is_dir() else 0
    return Kept(record, source, packed, used)


def _bytes(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
