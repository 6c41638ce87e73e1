"""A file that is written as a whole: a crash leaves the old one, or the new one, or none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that is synced and becomes ``path`` when the block ends without an error.

    It lies beside ``path`` meanwhile, whose folder must be there; after an error nothing is left.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to a ``new_file``.

    Raises:
        OSError: see ``new_file``.
    """
    with new_file(path) as file:
        file.write(text.encode())
