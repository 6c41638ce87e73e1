"""The whole state of a run in one file, which a crash at any moment leaves old or new, never torn.

Batches, learning rates and dropout are functions of the step, so weights, the optimizer's state and
the step are all that there is. The config lies beside it (run_folder.py).
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitinfer.errors import TrainingError
from bitinfer.formats.new_file import new_file


@dataclass(frozen=True)
class Checkpoint:
    """What was kept.

    Attributes:
        step: Steps that are done.
        model: Weights by name, fp32.
        optimizer: ``state_dict`` of the optimizer.
    """

    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write and sync beside ``path``, then rename; the one before stays until then.

    Raises:
        TrainingError: the disk is full or fails; the one before is still there.
    """
    try:
        with new_file(path) as file:
            torch.save(vars(checkpoint), file)
    except (OSError, RuntimeError) as cause:  # torch words a failed write in its own way
        failed = cause if isinstance(cause, OSError) else cause.__context__
        reason = failed.strerror if isinstance(failed, OSError) else str(cause).splitlines()[0]
        kept = ", the one before it is kept" if path.exists() else ""
        raise TrainingError(
            f"{path}: the checkpoint of step {checkpoint.step} cannot be written{kept}: {reason}:"
            " make room, then resume"
        ) from None


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What `write_checkpoint` wrote, or None where there is nothing; no code in it is run.

    Raises:
        TrainingError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError):
        raise TrainingError(
            f"{path}: expected a checkpoint, got a damaged file: restore it, or begin a new run"
        ) from None
