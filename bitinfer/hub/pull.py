"""Pull a model: fetch its files, check them, pack them; the second time it is there at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitinfer.config import ModelConfig
from bitinfer.convert import convert
from bitinfer.errors import HubError
from bitinfer.families import find_family
from bitinfer.formats.gguf_files import ENDING as GGUF_ENDING
from bitinfer.hub import hub_cache
from bitinfer.hub.digests import sha256_of
from bitinfer.hub.download import fetch
from bitinfer.hub.names import ModelName
from bitinfer.hub.records import (
    HubFile,
    Record,
    files_in,
    hub_folder,
    read_record,
    write_record,
    write_whole,
)
from bitinfer.hub.remote import ask_hub, taken
from bitinfer.hub.verify import remove_damaged

Report = Callable[[str, int, int], None]  # what is done, bytes done, bytes in all

_SPARE_BYTES = 64 << 20  # left free on the disk for whatever else is written meanwhile


def open_model(name: ModelName, report: Report) -> Path:
    """The packed folder of a model; what is missing is fetched and packed first.

    A model that is there is taken as it is, without a question to the hub.

    Raises:
        HubError: it cannot be had.
        BitinferError: it is no model that bitinfer can pack.
    """
    record = read_record(name)
    if record is None or not record.is_packed:
        with locked(name.repo, report):
            record = read_record(name) or _record_of_snapshot(name)
            if record is None or not all(hub_cache.has_file(record, f) for f in record.files):
                record = _fetch_all(name, report)
            _pack(record, report)
    record.touch()
    return record.packed_folder


def pull(name: ModelName, report: Report, *, check: bool = False) -> Path:
    """Fetch what the hub has now of a model, and pack it.

    Args:
        name: The model.
        report: Told of each step; "wait" while another process pulls the model.
        check: Compute the digests of what is here already; what is damaged is made again.

    Returns:
        The packed folder.

    Raises:
        HubError: it cannot be had. What came of it is kept, and the next pull goes on from there.
        BitinferError: it is no model that bitinfer can pack.
    """
    with locked(name.repo, report):
        known = read_record(name) if check else None
        if known is not None:
            remove_damaged(known, report)
        record = _fetch_all(name, report)
        _pack(record, report)
    record.touch()
    return record.packed_folder


@contextmanager
def locked(repo: str, report: Report) -> Iterator[None]:
    """Keep other processes from a model; one that dies leaves no lock behind."""
    import filelock

    path = hub_folder() / "locks" / f"{repo.replace('/', '--')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            report("wait", 0, 0)
            lock.acquire()
    except OSError as cause:
        raise HubError(
            f"{path}: cannot be written ({cause.strerror}): set BITINFER_HUB to a folder of yours"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _record_of_snapshot(name: ModelName) -> Record | None:
    """What another program has pulled, where the hub cannot be asked; links name the digests."""
    from huggingface_hub import constants

    commit = hub_cache.commit_of(name) if constants.HF_HUB_OFFLINE else None
    if commit is None:
        return None
    folder = hub_cache.repo_folder(name.repo) / "snapshots" / commit
    there = {file: path for file, path in files_in(folder).items() if path.is_symlink()}
    try:
        paths = {file: there[file] for file in taken(name, there)}
    except HubError:
        return None
    files = {
        file: HubFile(path.stat().st_size, path.readlink().name) for file, path in paths.items()
    }
    record = Record(name.repo, name.revision, commit, None, files, name.file)
    write_record(record)
    return record


def _fetch_all(name: ModelName, report: Report) -> Record:
    """Ask the hub for the model's files and fetch those that are not here."""
    record = ask_hub(name)
    write_record(record)
    missing = [file for file in record.files if not hub_cache.has_file(record, file)]
    _check_room(record, missing)
    total = sum(file.size for file in record.files.values())
    done = total - sum(record.files[file].size for file in missing)
    for file in missing:
        if file.endswith(".safetensors"):  # the first of them: before it is much, is it any use?
            find_family(ModelConfig.from_file(hub_cache.snapshot_folder(record) / "config.json"))
        fetch(record, file, lambda size, done=done: report("download", done + size, total))  # type: ignore[misc]
        done += record.files[file].size
    hub_cache.set_ref(record)
    return record


def _check_room(record: Record, missing: list[str]) -> None:
    """Refuse to begin what the disk cannot hold."""
    needed = sum(record.files[file].size for file in missing)
    partial = [hub_cache.partial_path(record.repo, record.files[file]) for file in missing]
    needed -= sum(path.stat().st_size for path in partial if path.exists())
    folder = hub_cache.cache_folder()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if missing and free < needed + _SPARE_BYTES:
        raise HubError(
            f"{record.name}: expected {(needed + _SPARE_BYTES) / 1e6:,.0f} MB free in {folder}, got"
            f" {free / 1e6:,.0f} MB: make room, or set HF_HOME to a folder on another disk"
        )


def _pack(record: Record, report: Report) -> None:
    """Convert the snapshot, unless that was done."""
    if record.is_packed:
        return
    folder = record.packed_folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.partial-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    source = hub_cache.snapshot_folder(record)
    gguf = [file for file in record.files if file.endswith(GGUF_ENDING)]
    convert(
        source / gguf[0] if gguf else source,
        folder,
        progress=lambda done, total: report("pack", done, total),
    )
    digests = {name: sha256_of(path) for name, path in files_in(folder).items()}
    write_whole(record.digests_path, json.dumps(digests, indent=1))
