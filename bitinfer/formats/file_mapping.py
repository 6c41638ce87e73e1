"""A file as read-only bytes in memory, without a copy."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import BitinferError


def map_file(path: Path, kind: str, error: type[BitinferError]) -> NDArray[np.uint8]:
    """Map ``path``; ``kind`` names its format in messages.

    Returns:
        Read-only bytes ``(size,)``; the file stays mapped while the array or a view of it lives.

    Raises:
        BitinferError: of class ``error``: the file is missing, empty, a directory or unreadable.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise error(f"{path}: expected {kind}, got an empty file: download it again")
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise error(f"{path}: file not found: download it, or give the model's folder") from None
    except IsADirectoryError:
        raise error(f"{path}: expected a {kind} file, got a directory") from None
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}") from None
    return np.frombuffer(mapping, dtype=np.uint8)
