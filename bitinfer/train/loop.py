"""``train``: rows of tokens in; a model folder, a log and checkpoints out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from bitinfer.train.config import TrainConfig
from bitinfer.train.log import StepRecord
from bitinfer.train.memory import keep_freed_memory
from bitinfer.train.new_model import save_model
from bitinfer.train.prepare import Rows, prepare
from bitinfer.train.run import LossFunction, Report, Run, next_token_loss
from bitinfer.train.run_folder import RunFolder


@dataclass(frozen=True)
class TrainResult:
    """A run that is done.

    Attributes:
        records: Of every step, also those before it was resumed; empty but in the first process.
        model: In fp32 with its ternary layers, ready for evaluation.
        folder: The model as a Hugging Face folder.
    """

    records: list[StepRecord]
    model: nn.Module
    folder: Path

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [record.loss for record in self.records]


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    model: nn.Module | None = None,
    rows: Rows | None = None,
    loss_fn: LossFunction = next_token_loss,
    report: Report = lambda record: None,
) -> TrainResult:
    """Train a model, or go on with a run.

    Under ``torchrun`` or ``accelerate launch`` every process calls it, and each takes its share of
    the rows of a step: the number of devices changes the rounding of a run, nothing else.

    Args:
        config: Of the run.
        out: Folder of the run (see `run_folder`); its parent must exist.
        resume: Go on from the last checkpoint in ``out``.
        model: A causal model of transformers, in fp32, to train instead of the one that the config
            describes; it is trained in place, and its layers stay what they are.
        rows: To learn instead of the config's data; then the config's tokenizer must be given.
        loss_fn: Takes the model (maybe wrapped) and rows (count, length) on its device; gives what
            to minimize, a mean over the rows.
        report: Called after every step, in the first process only.

    Returns:
        The records of all steps and the model.

    Raises:
        BitinferError: a file, setting or folder is refused; the disk is full; or a loss is not
            finite: then the last checkpoint is kept.
    """
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    folder, first = RunFolder(Path(out)), accelerator.is_main_process
    if first:
        folder.begin(config, resume=resume)
    with folder.locked() if first else nullcontext():
        with accelerator.main_process_first():
            prepared = prepare(config, folder, model, rows)
        run = Run(config, folder, prepared, accelerator, loss_fn=loss_fn)
        records = run.train(report)
        if first:
            save_model(config, run.model, folder.model, folder.tokenizer)
        accelerator.wait_for_everyone()
    return TrainResult(records, run.model.eval(), folder.model)
