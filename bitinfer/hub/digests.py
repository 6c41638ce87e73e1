"""Digests of files, in the ways of the hub: SHA-256, or the SHA-1 that git gives a blob."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bitinfer.hub.records import HubFile

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES = 1 << 20  # read at a time


def new_hash(file: HubFile) -> _Hash:
    """The hash, still without content, that ``file.digest`` was made with."""
    if len(file.digest) == 64:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def digest_of(path: Path, file: HubFile, progress: Callable[[int], None]) -> str:
    """The digest of what lies at ``path``.

    Args:
        path: A file.
        file: What it should be.
        progress: Called with the bytes of each part that was read.
    """
    found = new_hash(file)
    with path.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            found.update(chunk)
            progress(len(chunk))
    return found.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    return digest_of(path, HubFile(0, "0" * 64), lambda count: None)
