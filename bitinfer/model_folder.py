"""Where a model lies: a folder of the user's, the embedded model, or one of the hub by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitinfer.errors import CheckpointError
from bitinfer.hub.names import parse_name
from bitinfer.runtime import default_model


def find_model(
    path_or_name: str | Path, report: Callable[[str, int, int], None] | None = None
) -> Path:
    """The folder of a model; one of the hub is fetched and packed at its first use.

    Args:
        path_or_name: A folder, the embedded model's name, a short name ("2b4t"), or
            "owner/name" or "owner/name@revision" on the hub.
        report: Told what is done ("wait", "download" or "pack"), bytes done and bytes in all.

    Raises:
        CheckpointError: it is none of these.
        HubError: the model cannot be had from the hub.
        BitinferError: the hub has it in a form that cannot be packed.
    """
    path = Path(path_or_name).expanduser()
    embedded = default_model()
    if path.is_dir():
        return path
    if str(path_or_name) == embedded.name:
        return embedded
    name = parse_name(str(path_or_name))
    if name is not None and not path.exists():
        from bitinfer.hub.pull import open_model

        return open_model(name, report or (lambda step, done, total: None))
    got = "a file" if path.exists() else "nothing of that name"
    raise CheckpointError(
        f"model {str(path_or_name)!r}: expected a model folder, {embedded.name!r} (the embedded"
        f" model), a short name ('bitinfer list --known') or owner/name on the hub, got {got}"
    )
