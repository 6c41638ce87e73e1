"""BitDistill: a ternary student from a model of full precision, in three stages.

1. Norms before ``o_proj`` and ``down_proj`` (SubLN) and ternary projections are put into a copy of
   the teacher.
2. The student is trained on plain text (continued pre-training).
3. It is fine-tuned: on the labels, its teacher's logits and its teacher's attention relations.

The folder of a distillation::

    distill.json  the config: written first, and what a resumed one must agree with
    tokenizer/    the teacher's
    pretrain/     the run of stage 2 (see run_folder.py); its model/ may start other students
    finetune/     the run of stage 3; its model/ is the result

Source: arXiv 2510.13998.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedModel

from bitinfer.errors import ConfigError, TrainingError
from bitinfer.formats.new_file import replace_file
from bitinfer.formats.new_folder import new_folder
from bitinfer.formats.source import SIDE_FILES
from bitinfer.model_text import ModelText
from bitinfer.tokenizer import Tokenizer
from bitinfer.train.config import TrainConfig, check_same
from bitinfer.train.distill_config import CONFIG_NAME, DistillConfig
from bitinfer.train.distill_loss import DistillLoss, check_weights
from bitinfer.train.log import StepRecord
from bitinfer.train.loop import TrainResult, train
from bitinfer.train.new_model import to_ternary
from bitinfer.train.saving import load
from bitinfer.train.tasks import task_rows
from bitinfer.train.teacher import Teacher, load_teacher

Report = Callable[[str, StepRecord], None]  # name of the stage, a step of it


def distill(
    config: DistillConfig,
    out: str | Path,
    *,
    resume: bool = False,
    report: Report = lambda stage, record: None,
) -> TrainResult:
    """Make a ternary student, or go on with one.

    Under ``torchrun`` every process calls it, as it does `train`.

    Args:
        config: Of the distillation.
        out: Its folder; the parent must exist.
        resume: Go on with what is in ``out``.
        report: Called after every step with the name of the stage, in the first process only.

    Returns:
        The run of stage 3: its records, the student, and its folder.

    Raises:
        BitinferError: a file, setting or folder is refused, the disk is full, or a loss is not
            finite.
        ValueError: the weights do not go with the models.
    """
    out = Path(out)
    teacher = load_teacher(Path(config.teacher))
    finetune = config.finetune
    rows = task_rows(finetune, teacher.tokenizer)  # now: a bad example is not found after stage 2
    student = _student(config, teacher)
    check_weights(config.weights, student, teacher.model)
    with PartialState().main_process_first():
        tokenizer = _begin(config, teacher, out, resume=resume)
    if config.pretrain is not None:
        stage = replace(config.pretrain, tokenizer=str(tokenizer), form="master")
        student = _pretrained(stage, out / "pretrain", student, report)
    return train(
        replace(finetune, tokenizer=str(tokenizer), start=None),
        out / "finetune",
        resume=(out / "finetune" / "run.json").exists(),
        model=student,
        rows=rows,
        loss_fn=DistillLoss(student, teacher.model, config.weights),
        report=lambda record: report("finetune", record),
    )


def _student(config: DistillConfig, teacher: Teacher) -> PreTrainedModel:
    """The student as stage 1 leaves it."""
    start = config.finetune.start
    if start is None:
        student = copy.deepcopy(teacher.model).requires_grad_(requires_grad=True)
        to_ternary(config.finetune, student)
        return student
    student = load(start)
    vocab_size = student.config.vocab_size
    known = {"vocab_size": vocab_size, "bos_token_id": None, "eos_token_ids": ()}
    _check_same_tokens(ModelText(Path(start)).tokenizer(known), start, teacher.tokenizer, config)
    if vocab_size != teacher.model.config.vocab_size:
        raise TrainingError(
            f"{config.teacher}: expected logits of {vocab_size} tokens as of the student in"
            f" {start}, got {teacher.model.config.vocab_size}: take a teacher with as many"
        )
    return student


def _check_same_tokens(
    student: Tokenizer, start: str, teacher: Tokenizer, config: DistillConfig
) -> None:
    """Refuse a student whose tokens mean something else to its teacher."""
    ours, theirs = student.vocabulary, teacher.vocabulary
    if ours != theirs:
        token = min(i for i in {*ours, *theirs} if ours.get(i) != theirs.get(i))
        raise TrainingError(
            f"{config.teacher}: expected the tokenizer of the student in {start}, in which token"
            f" {token} is {ours.get(token)!r}, got {theirs.get(token)!r}: take a teacher with the"
            " same tokenizer, or a student made of it"
        )


def _begin(config: DistillConfig, teacher: Teacher, out: Path, *, resume: bool) -> Path:
    """Make the folder, or see that it is that of ``config``; the folder of the tokenizer."""
    file, tokenizer = out / CONFIG_NAME, out / "tokenizer"
    if resume:
        if not file.exists():
            raise TrainingError(f"{out}: expected the folder of a distillation, got no {file.name}")
        _check_same(DistillConfig.from_file(file), config, out)
    elif PartialState().is_main_process:
        try:
            out.mkdir(exist_ok=True)
            if (found := next(out.iterdir(), None)) is not None:
                raise TrainingError(
                    f"{out}: expected a new folder, got one that holds {found.name}: resume it"
                    " (--resume) if it is a distillation, or choose another"
                )
            replace_file(file, config.to_json() + "\n")
        except OSError as cause:
            raise TrainingError(f"{out}: cannot be written: {cause.strerror}") from None
    if not tokenizer.exists():
        with new_folder(tokenizer, (), "tokenizer.json") as fresh:
            for name in teacher.files.keys() & set(SIDE_FILES) - {"config.json"}:
                (fresh / name).parent.mkdir(exist_ok=True)
                (fresh / name).write_bytes(teacher.files[name])
    return tokenizer


def _check_same(kept: DistillConfig, now: DistillConfig, out: Path) -> None:
    """Refuse to resume with another config."""
    for name in ("teacher", "weights"):
        before, after = getattr(kept, name), getattr(now, name)
        if before != after:
            raise ConfigError(
                f"{name}: expected {before} as the distillation in {out} began, got {after}"
            )
    if kept.pretrain is None or now.pretrain is None:
        if kept.pretrain != now.pretrain:
            raise ConfigError(f"pretrain: expected it only if the distillation in {out} began so")
    else:
        check_same(kept.pretrain, now.pretrain, out)
    check_same(kept.finetune, now.finetune, out)


def _pretrained(
    config: TrainConfig, folder: Path, student: PreTrainedModel, report: Report
) -> PreTrainedModel:
    """The student after stage 2, which is done or gone on with."""
    done = folder / "model"
    if not done.exists():
        train(
            config,
            folder,
            resume=(folder / "run.json").exists(),
            model=student,
            report=lambda record: report("pretrain", record),
        )
    return load(done)
