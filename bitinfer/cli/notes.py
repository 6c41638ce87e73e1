"""What was found or mended when a packed folder was made, for the user to see."""

from __future__ import annotations

from pathlib import Path

import click

from bitinfer.cli.text import printable


def packed_notes(folder: Path) -> list[str]:
    """The notes that a packed folder keeps; none of anything else."""
    from bitinfer.formats.packed import PACKED_NAME, PackedFile, is_packed_folder

    if not is_packed_folder(folder):
        return []
    notes = PackedFile(folder / PACKED_NAME).header.source.get("notes")
    return [printable(str(note)) for note in notes] if isinstance(notes, list) else []


def echo_notes(folder: Path) -> None:
    """Write the notes of a packed folder to stderr."""
    for note in packed_notes(folder):
        click.echo(f"note: {note}", err=True)
