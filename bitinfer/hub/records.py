"""Records of pulled models, and where their packed folders lie: the user's cache folder.

::

    <hub folder>/<owner>--<name>/<revision>.json       the record; its mtime is the last use
    <hub folder>/<owner>--<name>/<revision>%3A<file>.json    where a file was asked for
    <hub folder>/<owner>--<name>/<key>/<name>/         the packed folder, key: of the source files
    <hub folder>/<owner>--<name>/<key>/digests.json    SHA-256 of its files, written last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bitinfer.errors import BitinferError, HubError
from bitinfer.formats.new_file import replace_file
from bitinfer.formats.packed import is_packed_folder
from bitinfer.hub.names import ModelName
from bitinfer.json_file import read_json_object

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_BYTES = 1 << 50  # no file has more


@dataclass(frozen=True)
class HubFile:
    """A file of a model as the hub describes it.

    Attributes:
        size: Bytes.
        digest: Lower-case hex; 64 digits: SHA-256, 40: the SHA-1 that git gives a blob.
    """

    size: int
    digest: str

    def __post_init__(self) -> None:
        """Check what may come from outside; a digest names a file on disk."""
        if type(self.size) is not int or not 0 <= self.size <= _MOST_BYTES:
            raise HubError(f"size: expected a number of bytes, got {self.size!r}")
        if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
            raise HubError(f"digest: expected 40 or 64 hex digits, got {self.digest!r}")


@dataclass(frozen=True)
class Record:
    """What was pulled, or begun to be.

    Attributes:
        repo: ``owner/name``.
        revision: As asked for.
        commit: What that was then.
        licence: As the hub names it; None: it does not.
        files: The files that bitinfer takes, by name.
        file: The GGUF file as asked for; None: none was.
    """

    repo: str
    revision: str
    commit: str
    licence: str | None
    files: Mapping[str, HubFile]
    file: str | None = None

    def __post_init__(self) -> None:
        """Check what may come from outside; the commit names a folder on disk."""
        if not isinstance(self.commit, str) or not _COMMIT.fullmatch(self.commit):
            raise HubError(f"commit: expected 40 hex digits, got {self.commit!r}")

    @property
    def name(self) -> ModelName:
        """As a user types it."""
        return ModelName(self.repo, self.revision, self.file)

    @property
    def title(self) -> str:
        """The repository, and the file that was asked for."""
        return str(ModelName(self.repo, file=self.file))

    @property
    def key(self) -> str:
        """Of the packed folder: equal files, equal key."""
        digests = sorted((name, file.digest) for name, file in self.files.items())
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]

    @property
    def packed_folder(self) -> Path:
        """Where the packed model is, or will be."""
        return _model_folder(self.repo) / self.key / self.repo.partition("/")[2]

    @property
    def digests_path(self) -> Path:
        """Where the digests of the packed folder's files are."""
        return self.packed_folder.parent / "digests.json"

    @property
    def is_packed(self) -> bool:
        """Whether the packed folder is there and complete."""
        return self.digests_path.is_file() and is_packed_folder(self.packed_folder)

    def touch(self) -> None:
        """Note that the model was used now."""
        with contextlib.suppress(OSError):  # of a cache that is not ours to write
            os.utime(_record_path(self.name))


def hub_folder() -> Path:
    """Where records and packed folders are; ``BITINFER_HUB`` names another. It need not exist."""
    named = os.environ.get("BITINFER_HUB", "").strip()
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("bitinfer", appauthor=False) / "hub"


def _model_folder(repo: str) -> Path:
    return hub_folder() / repo.replace("/", "--")


def _record_path(name: ModelName) -> Path:
    version = name.revision + (f":{name.file}" if name.file else "")
    return _model_folder(name.repo) / f"{quote(version, safe='')}.json"


def read_record(name: ModelName) -> Record | None:
    """The record of a model; None: there is none that can be read."""
    return _read(_record_path(name))


def all_records() -> Iterator[tuple[Record, float]]:
    """Yield each record and when the model was last used (seconds since 1970)."""
    for path in hub_folder().glob("*--*/*.json"):
        record = _read(path)
        if record is not None:
            yield record, path.stat().st_mtime


def _read(path: Path) -> Record | None:
    try:
        values = read_json_object(path, HubError)
        files = {name: HubFile(**file) for name, file in values.pop("files").items()}
        record = Record(**values, files=files)
        return record if path == _record_path(record.name) else None
    except (BitinferError, KeyError, TypeError, AttributeError):
        return None


def write_record(record: Record) -> None:
    """Write or replace a record.

    Raises:
        HubError: the folder cannot be written.
    """
    write_whole(_record_path(record.name), json.dumps(asdict(record), indent=1))


def forget_record(record: Record) -> None:
    """Remove a record."""
    _record_path(record.name).unlink(missing_ok=True)


def read_digests(record: Record) -> Mapping[str, Any]:
    """File name to SHA-256 of the packed folder; empty where they cannot be read."""
    try:
        return read_json_object(record.digests_path, HubError)
    except HubError:
        return {}


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        HubError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as cause:
        raise HubError(f"{path}: cannot be written: {cause.strerror}") from None


def files_in(folder: Path) -> dict[str, Path]:
    """Each file of a folder and of those in it, by its name from there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files}
