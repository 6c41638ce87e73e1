"""A run in memory: the model, its optimizer, the step they are at, and how they go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from bitinfer.errors import ConfigError, TrainingError
from bitinfer.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from bitinfer.train.config import TrainConfig
from bitinfer.train.data import IGNORED
from bitinfer.train.log import RunLog, StepRecord
from bitinfer.train.new_model import to_ternary
from bitinfer.train.optimizer import new_optimizer
from bitinfer.train.prepare import Prepared
from bitinfer.train.run_folder import RunFolder
from bitinfer.train.schedule import learning_rate, weight_decay

_COMPILED_FROM_STEPS = 1000  # torch.compile takes a minute and saves a part of each step
_EAGER_UP_TO = 512  # tokens: torch's fused attention goes back slower than plain products on a CPU

LossFunction = Callable[[nn.Module, Tensor], Tensor]
Report = Callable[[StepRecord], None]


def next_token_loss(model: nn.Module, rows: Tensor) -> Tensor:
    """Mean cross entropy of what is to be learned of rows, as ``split_rows`` takes them; fp32."""
    inputs, labels, _ = split_rows(rows)
    labels = labels.contiguous()  # IGNORED is what transformers leaves out, too
    loss: Tensor = model(input_ids=inputs, labels=labels, shift_labels=labels, use_cache=False).loss
    return loss


def split_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, labels, and which tokens are no padding, ``(B, T)`` each.

    Args:
        rows: int64, ``(B, T + 1)`` tokens of a text, or ``(B, 2, T)`` as ``TaskRows`` gives them.
    """
    ids, labels = (rows[:, 0], rows[:, 1]) if rows.ndim == 3 else (rows[:, :-1], rows[:, 1:])
    present = ids != IGNORED
    return ids.where(present, 0), labels, present


class Run:
    """One process of a run.

    Attributes:
        model: What is trained, neither wrapped nor compiled anew.
        done: Steps that are done.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        prepared: Prepared,
        accelerator: Accelerator,
        *,
        loss_fn: LossFunction,
    ) -> None:
        """Build the optimizer, and go on from the checkpoint in ``folder`` if there is one.

        Raises:
            BitinferError: the checkpoint is damaged, or the config does not fit the model or the
                number of processes.
        """
        self._config, self._folder, self._accelerator = config, folder, accelerator
        self._rows, self._validation = prepared.rows, prepared.validation
        self._loss_fn = loss_fn
        self._piece = _rows_at_once(config, accelerator.num_processes)
        self._ternary_at: int | None = None
        if prepared.turns_ternary:
            self._ternary_at = round(config.ternary_from * config.steps)
        checkpoint = read_checkpoint(folder.checkpoint)
        self.done = checkpoint.step if checkpoint else 0
        self.model: Any = prepared.model.to(accelerator.device).train()
        if accelerator.device.type == "cpu" and config.context_length <= _EAGER_UP_TO:
            self.model.set_attn_implementation("eager")
        if self._ternary_at is not None and self.done >= self._ternary_at:
            to_ternary(config, self.model)
        self._row_length = split_rows(self._tensor(self._rows.rows(0, 1)))[0].shape[1]
        self._optimizer = new_optimizer(config.optimizer, self.model)
        if checkpoint:
            self.model.load_state_dict(checkpoint.model)
            self._optimizer.load_state_dict(checkpoint.optimizer)
        self._compile()
        # The wrapper, if any, averages gradients over the processes.
        self._wrapped = accelerator.prepare_model(self.model)

    def train(self, report: Report) -> list[StepRecord]:
        """Do the steps that are left; the records of all, in the first process only.

        Raises:
            TrainingError: a loss is not finite, or the disk is full.
        """
        if not self._accelerator.is_main_process:
            for _ in self._steps():
                pass
            return []
        with RunLog(self._folder.path, self.done) as log:
            for record in self._steps():
                log.add(record)
                report(record)
                if self.done % self._config.save_every == 0 or self.done == self._config.steps:
                    log.keep()
                    self._keep()
        return log.records

    def _steps(self) -> Iterator[StepRecord]:
        """Do each step that is left, and yield what is known of it."""
        config = self._config
        while self.done < config.steps:
            began = time.perf_counter()
            loss, norm = self._step()
            seconds = time.perf_counter() - began
            step, self.done = self.done, self.done + 1
            if self.done == self._ternary_at:
                to_ternary(config, self.model)
                self._compile()
            measures = self.done % config.validate_every == 0 or self.done == config.steps
            tokens = config.batch_size * self._row_length
            yield StepRecord(
                step=self.done,
                tokens=self.done * tokens,
                loss=loss,
                grad_norm=norm,
                learning_rate=learning_rate(config, step),
                weight_decay=weight_decay(config, step),
                tokens_per_s=tokens / seconds,
                validation=self._validate() if measures else {},
            )

    def _step(self) -> tuple[float, float]:
        """One step of the optimizer: mean loss, norm of the gradients."""
        config, accelerator = self._config, self._accelerator
        torch.manual_seed(
            config.seed + self.done * accelerator.num_processes + accelerator.process_index
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(config, self.done)
            group["weight_decay"] = weight_decay(config, self.done) if group["decays"] else 0.0
        pieces = config.gradient_accumulation_steps
        first = self.done * config.batch_size + accelerator.process_index * pieces * self._piece
        total = torch.zeros((), device=accelerator.device)
        for index in range(pieces):
            tokens = self._tensor(self._rows.rows(first + index * self._piece, self._piece))
            last = index == pieces - 1
            with nullcontext() if last else accelerator.no_sync(self._wrapped):
                with self._autocast():
                    loss = self._loss_fn(self._wrapped, tokens) / pieces
                loss.backward()
            total += loss.detach()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm))
        mean = float(accelerator.reduce(total, "mean"))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise self._diverged(mean, norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return mean, norm

    def _diverged(self, loss: float, norm: float) -> TrainingError:
        kept = read_checkpoint(self._folder.checkpoint)
        state = f"the checkpoint of step {kept.step} is kept" if kept else "there is no checkpoint"
        return TrainingError(
            f"step {self.done + 1}: the loss is {loss:g}, the norm of its gradients {norm:g}:"
            f" {state} in {self._folder.path}; begin a new run with a lower learning_rate"
        )

    def _validate(self) -> dict[str, float]:
        """Mean loss per token of each validation file.

        A model that drops nothing out stays as it learns, with gradients, which are not taken:
        so it is not compiled once more.
        """
        differs = _drops_out(self.model)
        self.model.train(not differs)
        with torch.set_grad_enabled(not differs):
            found = {name: self._mean_loss(rows) for name, rows in self._validation.items()}
        self.model.train()
        return found

    def _mean_loss(self, rows: NDArray[np.int64]) -> float:
        accelerator = self._accelerator
        mine = rows[accelerator.process_index :: accelerator.num_processes]
        sums = torch.zeros(2, dtype=torch.float64)
        for begin in range(0, len(mine), self._piece):
            piece = mine[begin : begin + self._piece]
            missing = self._piece - len(piece)
            piece = np.pad(piece, ((0, missing), (0, 0)), constant_values=IGNORED)
            count = int((piece[:, 1:] != IGNORED).sum())
            with self._autocast():
                loss = next_token_loss(self.model, self._tensor(piece))
            sums += torch.tensor([float(loss.detach()) * count, count], dtype=torch.float64)
        loss, count = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
        return loss / count

    def _keep(self) -> None:
        write_checkpoint(
            self._folder.checkpoint,
            Checkpoint(self.done, self.model.state_dict(), self._optimizer.state_dict()),
        )

    def _tensor(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows)).to(self._accelerator.device)

    def _autocast(self) -> torch.autocast:
        kind = self._accelerator.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self._config.precision == "bf16")

    def _compile(self) -> None:
        wanted = self._config.compile
        if self._config.steps >= _COMPILED_FROM_STEPS if wanted is None else wanted:
            torch.compiler.reset()
            self.model.compile()


def _rows_at_once(config: TrainConfig, processes: int) -> int:
    """Rows of one forward pass."""
    pieces = processes * config.gradient_accumulation_steps
    if config.batch_size % pieces:
        raise ConfigError(
            "batch_size: expected a multiple of processes * gradient_accumulation_steps"
            f" ({processes} * {config.gradient_accumulation_steps}), got {config.batch_size}"
        )
    return config.batch_size // pieces


def _drops_out(model: nn.Module) -> bool:
    """Whether training and evaluation of a model differ."""
    return any(
        getattr(module, "attention_dropout", 0) > 0
        or (isinstance(module, nn.Dropout) and module.p > 0)
        for module in model.modules()
    )
