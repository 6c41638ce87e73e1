"""Where a model lies: a folder of the user's, or the embedded model by its name."""

from __future__ import annotations

from pathlib import Path

from bitinfer.errors import CheckpointError
from bitinfer.runtime import default_model


def find_model(path_or_name: str | Path) -> Path:
    """The folder of a model.

    Raises:
        CheckpointError: it is neither a folder nor the embedded model's name.
    """
    path = Path(path_or_name)
    embedded = default_model()
    if path.is_dir():
        return path
    if str(path_or_name) == embedded.name:
        return embedded
    got = "a file" if path.exists() else "nothing of that name"
    raise CheckpointError(
        f"model {str(path_or_name)!r}: expected a model folder or {embedded.name!r} "
        f"(the embedded model), got {got}"
    )
