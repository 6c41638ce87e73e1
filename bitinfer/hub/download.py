"""One file from the hub: goes on where it was cut off, and is checked before it counts.

huggingface_hub makes the requests (tokens, redirects, retries). It writes to a `_Partial`, which
keeps what came, counts it, and computes its digest on the way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bitinfer.errors import HubError
from bitinfer.hub import hub_cache
from bitinfer.hub.digests import CHUNK_BYTES, new_hash
from bitinfer.hub.faults import told_plainly
from bitinfer.hub.records import HubFile, Record

_BAR = "huggingface_hub.http_get"


def fetch(record: Record, name: str, progress: Callable[[int], None]) -> None:
    """Fetch a file of a model into the hub's cache.

    Args:
        record: The model.
        name: The file, one of ``record.files``.
        progress: Called with how many bytes of it are there.

    Raises:
        HubError: it cannot be had, or is not what the hub says it is. What came of it is kept for
            the next attempt, unless it is wrong.
    """
    file = record.files[name]
    if not hub_cache.has_blob(record.repo, file):
        path = hub_cache.partial_path(record.repo, file)
        with told_plainly(record.name, name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "w+b", buffering=0) as raw:
                partial = _Partial(raw, file, progress)
                _receive(record, name, partial)
                _check(record, name, partial, path)
                os.fsync(raw.fileno())
            path.replace(hub_cache.blob_path(record.repo, file))
    with told_plainly(record.name, name):
        hub_cache.link(record, name)
    progress(file.size)


class _Partial:
    """A file that grows; what `http_get` needs of one.

    Attributes:
        size: Bytes so far.
    """

    def __init__(self, raw: BinaryIO, file: HubFile, progress: Callable[[int], None]) -> None:
        self._raw, self._file, self._progress = raw, file, progress
        self._read_again()

    def _read_again(self) -> None:
        """Take up what the file holds."""
        self._hash = new_hash(self._file)
        self.size = 0
        self._raw.seek(0)
        while chunk := self._raw.read(CHUNK_BYTES):
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        self._progress(self.size)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> int:
        if self.size + len(chunk) > self._file.size:
            self.size += len(chunk)
            raise _TooLongError
        rest = memoryview(chunk)
        while rest:  # an unbuffered file may take less
            rest = rest[self._raw.write(rest) :]
        self._take(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, position: int) -> int:
        return self._raw.seek(position)

    def truncate(self) -> None:
        self._raw.truncate()
        self._read_again()


class _TooLongError(Exception):
    """More bytes came than the hub had announced."""


def _receive(record: Record, name: str, partial: _Partial) -> None:
    """Fetch what is missing."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    size = record.files[name].size
    if partial.size > size:
        partial.seek(0)
        partial.truncate()
    headers = build_hf_headers(library_name="bitinfer")
    headers["Accept-Encoding"] = "identity"  # bytes as they are on disk, to go on from
    url = hf_hub_url(record.repo, name, revision=record.commit)
    while partial.size < size:
        before = partial.size
        try:
            with _no_bars():
                http_get(url, partial, resume_size=before, headers=headers, expected_size=size)  # type: ignore[arg-type]
            return
        except _TooLongError:
            return  # the check says so
        except Exception as cause:
            if partial.size > before:
                continue  # cut off; as long as something comes, it goes on
            if "Consistency check failed" in str(cause):
                return  # too short; the check says so
            raise


def _check(record: Record, name: str, partial: _Partial, path: Path) -> None:
    """Compare with what the hub announced; what is wrong is removed."""
    file = record.files[name]
    wrong = None
    if partial.size > file.size:
        wrong = f"expected {file.size} bytes, got more"
    elif partial.size < file.size:
        wrong = f"expected {file.size} bytes, got {partial.size}"
    elif partial.digest != file.digest:
        kind = "SHA-256" if len(file.digest) == 64 else "git SHA-1"
        wrong = f"expected {kind} {file.digest[:12]}…, got {partial.digest[:12]}…"
    if wrong is None:
        return
    path.unlink(missing_ok=True)
    raise HubError(
        f"{record.name}: {name}: {wrong} from the hub: damaged on the way, 'bitinfer pull"
        f" {record.name}' fetches it again"
    )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing bars of its own."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:  # the user has decided
        yield
        return
    disable_progress_bars(_BAR)
    try:
        yield
    finally:
        enable_progress_bars(_BAR)
