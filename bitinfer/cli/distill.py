"""``bitinfer distill``: a ternary student of a full-precision model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.field_option import FieldOption
from bitinfer.cli.options import Sections
from bitinfer.train.config import TrainConfig
from bitinfer.train.distill_config import (
    CONFIG_NAME,
    FINETUNE_DEFAULTS,
    PRETRAIN_DEFAULTS,
    DistillConfig,
    LossWeights,
)

if TYPE_CHECKING:
    from bitinfer.train.log import StepRecord

_OF_BOTH_STAGES = (
    *("context_length", "batch_size", "gradient_accumulation_steps", "max_grad_norm"),
    *("weight_decay", "seed", "precision", "compile", "validation", "validate_every", "save_every"),
)
_OF_FINETUNE = ("steps", "learning_rate", "warmup_steps")
_WEIGHTS = {  # flag -> field
    **{f"{name}_weight": name for name in ("cross_entropy", "logits", "relation")},
    "temperature": "temperature",
    "relation_layer": "layer",
    "relation_heads": "relation_heads",
}


def _config_options(command: click.Command) -> click.Command:
    """Add an option for each field that has a meaning here."""
    known = {field.name: field for field in fields(TrainConfig)}
    files = {"multiple": True, "metavar": "FILE"}
    command.params += [FieldOption(known["sub_norm"], "Stage 1: the student")]
    for name in _OF_FINETUNE:
        default, flag = PRETRAIN_DEFAULTS[name], f"pretrain_{name}"
        option = FieldOption(known[name], _STAGE_2, name=flag, default=default, **_helps(name))
        command.params.append(option)
    for name in _OF_FINETUNE:
        default = FINETUNE_DEFAULTS[name]
        option = FieldOption(known[name], _STAGE_3, default=default, **_helps(name))
        command.params.append(option)
    own = {field.name: field for field in fields(LossWeights)}
    command.params += [FieldOption(own[of], _STAGE_3, name=flag) for flag, of in _WEIGHTS.items()]
    for name in _OF_BOTH_STAGES:
        more = files if name == "validation" else _helps(name)
        default = FINETUNE_DEFAULTS.get(name)
        command.params.append(FieldOption(known[name], "Both", default=default, **more))
    command.params.append(FieldOption(known["form"], "Result"))
    return command


def _helps(name: str) -> dict[str, str]:
    """Of fields that speak of the recipe's two stages, of which there is one here."""
    helps = {"learning_rate": "Peak; a line leads from it to 0", "weight_decay": "Of matrices"}
    return {"help": helps[name]} if name in helps else {}


_STAGE_2, _STAGE_3 = "Stage 2: plain text", "Stage 3: fine-tuning"


@_config_options
@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer distill SmolLM2-135M task.jsonl student --pretrain stories.txt
  bitinfer distill teacher.gguf stories.txt student --relation-weight 0
  bitinfer distill SmolLM2-135M b.jsonl two --student student/pretrain/model
  bitinfer distill student --resume""",
)
@click.argument("places", nargs=-1, metavar="TEACHER DATA OUT")
@click.option("--resume", is_flag=True, help="Go on with what is in OUT; no other option is needed")
@click.option(
    "--student",
    metavar="FOLDER",
    help="Begin with this model, saved as masters, instead of the teacher's weights",
)
@click.option(
    "--pretrain",
    "texts",
    multiple=True,
    metavar="FILE",
    help="Text of stage 2; may be repeated [default: no stage 2]",
)
def distill(
    places: tuple[str, ...],
    resume: bool,
    student: str | None,
    texts: tuple[str, ...],
    **given: Any,
) -> None:
    """Make a ternary student of TEACHER, which learns DATA; the student is OUT/finetune/model.

    TEACHER is the folder or GGUF file of a Llama or Qwen3 model. DATA is text, or examples in a
    .jsonl file: objects with "prompt" and "completion", or with "text" and "label".
    """
    given = {name: value for name, value in given.items() if value not in (None, ())}
    if resume:
        if len(places) != 1 or given or student or texts:
            raise click.UsageError("--resume: expected OUT alone, the rest is kept in it")
        config = DistillConfig.from_file(Path(places[0]) / CONFIG_NAME)
    elif len(places) != 3:
        raise click.UsageError(f"expected TEACHER DATA OUT, got {len(places)} of them")
    else:
        config = _config(places[0], places[1], student, texts, given)
    _run(config, Path(places[-1]), resume)


def _config(
    teacher: str, data: str, student: str | None, texts: tuple[str, ...], given: dict[str, Any]
) -> DistillConfig:
    """The config that the options make."""
    if not texts and (of_texts := [name for name in given if name.startswith("pretrain_")]):
        raise click.UsageError(f"--{of_texts[0].replace('_', '-')}: needs --pretrain FILE")
    if student is not None and "sub_norm" in given:
        raise click.UsageError("--sub-norm: expected none with --student, which has its own form")
    weights = {field: given.pop(flag) for flag, field in _WEIGHTS.items() if flag in given}
    second = {name: given.pop(f"pretrain_{name}", None) for name in _OF_FINETUNE}
    second = {name: value for name, value in second.items() if value is not None}
    shared = {name: value for name, value in given.items() if name not in (*_OF_FINETUNE, "form")}
    return DistillConfig(
        teacher=teacher,
        finetune=TrainConfig(**FINETUNE_DEFAULTS | given, data=(data,), start=student),
        pretrain=TrainConfig(**PRETRAIN_DEFAULTS | shared | second, data=texts) if texts else None,
        weights=LossWeights(**weights),
    )


def _run(config: DistillConfig, out: Path, resume: bool) -> None:
    from bitinfer.cli.train_progress import train_progress
    from bitinfer.train import distill as run

    stages = {"pretrain": config.pretrain or config.finetune, "finetune": config.finetune}
    with ExitStack() as shown:
        reports: dict[str, Any] = {}

        def report(stage: str, record: StepRecord) -> None:
            if stage not in reports:
                shown.close()  # the bar of the stage before
                click.echo(f"{stage}:", err=True)
                reports[stage] = shown.enter_context(train_progress(stages[stage]))
            reports[stage](record)

        try:
            result = run(config, out, resume=resume, report=report)
        except KeyboardInterrupt:
            click.echo(
                f"stopped: 'bitinfer distill {out} --resume' goes on from the last save", err=True
            )
            raise
        except ValueError as cause:  # weights that do not go with the models
            raise click.ClickException(str(cause)) from None
    if not result.records:  # another process than the first
        return
    size = sum(file.stat().st_size for file in result.folder.iterdir())
    click.echo(f"wrote {result.folder}: {size / 1e6:.1f} MB, loss {result.losses[-1]:.3f}")
