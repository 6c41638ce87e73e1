"""Where a model lies: a folder or file of the user's, the embedded model, or one of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitinfer.errors import CheckpointError, HubError
from bitinfer.formats.gguf_files import is_gguf
from bitinfer.hub.names import ModelName, parse_name
from bitinfer.runtime import default_model


def find_model(
    path_or_name: str | Path, report: Callable[[str, int, int], None] | None = None
) -> Path:
    """The folder or GGUF file of a model; one of the hub is fetched and packed at its first use.

    Args:
        path_or_name: A folder or GGUF file, the embedded model's name, a short name ("2b4t"), or
            "owner/name" or "owner/name@revision" on the hub.
        report: Told what is done ("wait", "download" or "pack"), bytes done and bytes in all.

    Raises:
        CheckpointError: it is none of these.
        HubError: the model cannot be had from the hub.
        BitinferError: the hub has it in a form that cannot be packed.
    """
    path = Path(path_or_name).expanduser()
    embedded = default_model()
    if path.is_dir() or is_gguf(path):
        return path
    if str(path_or_name) == embedded.name:
        return embedded
    name = parse_name(str(path_or_name))
    if name is not None and not path.exists():
        return _of_the_hub(name, str(path_or_name), report or (lambda step, done, total: None))
    got = "a file" if path.exists() else "nothing of that name"
    raise CheckpointError(
        f"model {str(path_or_name)!r}: expected a model folder, a GGUF file, {embedded.name!r} (the"
        " embedded model), a short name ('bitinfer list --known') or owner/name on the hub, got"
        f" {got}"
    )


def _of_the_hub(name: ModelName, typed: str, report: Callable[[str, int, int], None]) -> Path:
    """The packed folder; where the hub knows nothing of it, ``typed`` may be a mistyped path."""
    from bitinfer.hub.pull import open_model
    from bitinfer.hub.records import read_record

    try:
        return open_model(name, report)
    except HubError as cause:
        if typed != name.repo or read_record(name) is not None:
            raise
        raise HubError(
            f"{cause}; if a folder is meant: there is no {typed!r} in {Path.cwd()}, check the path"
        ) from None


def file_bytes(model: Path) -> int:
    """Bytes on disk of a model's folder or file."""
    files = model.iterdir() if model.is_dir() else [model]
    return sum(file.stat().st_size for file in files if file.is_file())
