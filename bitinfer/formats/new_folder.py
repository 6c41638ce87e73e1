"""Make a folder whole or not at all: written beside its place, synced, then renamed into it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitinfer.errors import BitinferError, PackedFileError


@contextmanager
def new_folder(target: Path, replaceable: Collection[str], mark: str) -> Iterator[Path]:
    """Yield a fresh folder that becomes ``target`` when the block ends without an error.

    After an error or Ctrl-C nothing of it is left. An existing ``target`` is replaced only if it is
    empty, or holds the file ``mark`` and nothing but files named in ``replaceable``.

    Args:
        target: The folder to make; its parent must exist.
        replaceable: Names of the files that such a folder may hold, of one in a folder with it.
        mark: The file that makes it one of ours.

    Raises:
        PackedFileError: ``target`` cannot be made or replaced, or the disk is full or fails.
    """
    check_target(target, replaceable, mark)
    target = target.resolve()  # the folder that a link names, not the link
    fresh = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        try:
            fresh.mkdir()
            yield fresh
            for path in (*fresh.rglob("*"), fresh):
                _sync(path)
            _put_in_place(fresh, target)
        except OSError as cause:
            raise PackedFileError(f"{target}: cannot be written: {cause.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_target(target: Path, replaceable: Collection[str], mark: str) -> None:
    """Refuse a target that cannot be made or must not be replaced.

    Raises:
        PackedFileError: see ``new_folder``.
    """
    target = target.resolve()
    if not target.parent.is_dir():
        raise PackedFileError(f"{target.parent}: expected a folder to write to: create it first")
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise PackedFileError(f"{target}: expected a folder, got a file: choose another place")
    folders = {name.partition("/")[0] for name in replaceable if "/" in name}
    names = [
        found.relative_to(target).as_posix()
        for path in target.iterdir()
        for found in (path.iterdir() if path.name in folders and path.is_dir() else [path])
    ]
    foreign = sorted(name for name in names if name not in replaceable)
    if foreign or (names and mark not in names):
        found = foreign[0] if foreign else names[0]
        raise PackedFileError(
            f"{target}: expected a new or a packed folder, got one that holds {found}: choose"
            " another place, or remove it yourself"
        )


def check_free_space(
    target: Path, needed: int, error: type[BitinferError] = PackedFileError
) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        BitinferError: of class ``error``: fewer than ``needed`` bytes are free where ``target``
            would be.
    """
    free = shutil.disk_usage(target.resolve().parent).free
    if free < needed:
        raise error(
            f"{target}: expected {needed / 1e6:.0f} MB free on this disk, got {free / 1e6:.0f} MB:"
            " make room, or choose another place"
        )


def _put_in_place(fresh: Path, target: Path) -> None:
    """Rename ``fresh`` to ``target``; an old ``target`` steps aside and is removed after."""
    aside = fresh.with_name(fresh.name + ".old")
    old = target.exists()
    if old:
        target.rename(aside)
    try:
        fresh.rename(target)
    except BaseException:
        if old:
            aside.rename(target)
        raise
    _sync(target.parent)
    if old:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
