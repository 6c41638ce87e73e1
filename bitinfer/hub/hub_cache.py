"""The hub's cache on this disk (``HF_HOME``), in the layout that huggingface_hub documents.

::

    models--<owner>--<name>/blobs/<digest>               each content once
    models--<owner>--<name>/snapshots/<commit>/<file>    links to the blobs
    models--<owner>--<name>/refs/<revision>              the commit of a branch or tag

A blob in the making is ``<digest>.bitinfer.incomplete``: huggingface_hub itself begins each
download anew, with a name of our own it goes on where it was cut off.
"""

from __future__ import annotations

import os
from pathlib import Path

from bitinfer.hub.names import ModelName
from bitinfer.hub.records import HubFile, Record, write_whole

_PARTIAL = ".bitinfer.incomplete"


def cache_folder() -> Path:
    """Where the hub's cache is; it need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repo_folder(repo: str) -> Path:
    """Where all of a model is."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def blob_path(repo: str, file: HubFile) -> Path:
    """Where the content of a file is or will be."""
    return repo_folder(repo) / "blobs" / file.digest


def partial_path(repo: str, file: HubFile) -> Path:
    """Where a download grows."""
    blob = blob_path(repo, file)
    return blob.with_name(blob.name + _PARTIAL)


def partial_paths(repo: str) -> list[Path]:
    """Downloads that were cut off."""
    return sorted((repo_folder(repo) / "blobs").glob(f"*{_PARTIAL}"))


def snapshot_folder(record: Record) -> Path:
    """Where the files of a commit are, by their names."""
    return repo_folder(record.repo) / "snapshots" / record.commit


def has_file(record: Record, name: str) -> bool:
    """Whether a file is there, in its full size."""
    return _size(snapshot_folder(record) / name) == record.files[name].size


def has_blob(repo: str, file: HubFile) -> bool:
    """Whether the content of a file is there, in its full size."""
    return _size(blob_path(repo, file)) == file.size


def link(record: Record, name: str) -> None:
    """Put a blob into the snapshot: as a link, or itself where the system has no links."""
    blob = blob_path(record.repo, record.files[name])
    target = snapshot_folder(record) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(os.path.relpath(blob, target.parent))
    except OSError:
        blob.replace(target)


def set_ref(record: Record) -> None:
    """Note which commit a branch or tag is, as other programs expect it."""
    if record.revision != record.commit:
        write_whole(repo_folder(record.repo) / "refs" / record.revision, record.commit)


def remove_file(record: Record, name: str) -> None:
    """Remove a file and its content."""
    blob_path(record.repo, record.files[name]).unlink(missing_ok=True)
    (snapshot_folder(record) / name).unlink(missing_ok=True)


def remove_snapshot(record: Record) -> None:
    """Remove a commit, and each content that no other commit has."""
    from huggingface_hub import scan_cache_dir

    for path in partial_paths(record.repo):
        path.unlink(missing_ok=True)
    if snapshot_folder(record).is_dir():
        scan_cache_dir(cache_folder()).delete_revisions(record.commit).execute()


def commit_of(name: ModelName) -> str | None:
    """The commit that a revision was when some program last asked; None: it never did."""
    ref = repo_folder(name.repo) / "refs" / name.revision
    if ref.is_file():
        return ref.read_text(encoding="utf-8").strip()
    return (
        name.revision if (repo_folder(name.repo) / "snapshots" / name.revision).is_dir() else None
    )


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
